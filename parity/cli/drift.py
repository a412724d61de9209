"""`parity diff`, `parity matrix`: what changed from one release, machine or mode to another."""

from __future__ import annotations

import click

from parity.cli.output import coloured, marks, progress, write

__all__ = ["diff", "matrix"]


@click.command()
@click.argument("left")
@click.argument("right")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON instead of text.")
def diff(left: str, right: str, as_json: bool) -> int:
    """Compare two recordings, tensor by tensor: two releases of TensorFlow or Keras, two machines, eager and XLA.

    LEFT and RIGHT are files that parity record wrote, or folders of them. TensorFlow is not needed. Exit status: 0 the
    same within budget, 1 a tensor is beyond, 3 of some network nothing can be said, 4 a bad file.
    """
    from parity.golden.drift import diff

    with progress() as say:
        found = diff(left, right, progress=say)
    write(found.to_json() + "\n" if as_json else coloured(found.lines(marks())))
    return found.exit_status


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--env", "environments", multiple=True, metavar="NAME=COMMAND",
              help="An environment, and the command that stands for parity there. Give two or more; the others are "
              "compared with the first.")  # fmt: skip
@click.option("--keep", metavar="FOLDER", help="Keep the recordings there, in NAME/MODEL. Default: throw them away.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="For each command. Default: 3600.")  # fmt: skip
def matrix(models: tuple[str, ...], environments: tuple[str, ...], keep: str | None, timeout: float | None) -> int:
    """Record networks in several environments, compare each environment with the first, and print the table.

    MODEL is what parity record takes; without one, the project's own networks and cases. A command is split into words
    and run without a shell, so `env TF_ENABLE_ONEDNN_OPTS=0 parity` is one, too. Exit status: 1 a tensor is beyond
    budget, or a check did not pass in some environment; 3 of something nothing can be said; else 0.
    """
    from parity.errors import UsageError
    from parity.golden.matrix import MODELS, TIMEOUT, matrix

    commands: dict[str, str] = {}
    for each in environments:
        name, equals, command = each.partition("=")
        if not equals or name in commands:
            what = "given twice" if equals else "it has no ="
            raise UsageError(f"--env: expected NAME=COMMAND, each name once; received {each!r}: {what}")
        commands[name] = command
    with progress() as say:
        found = matrix(commands, models or MODELS, keep=keep, timeout=timeout or TIMEOUT, progress=say)
    write(coloured(found.lines()))
    return found.exit_status
