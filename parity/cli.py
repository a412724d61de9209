"""The command line: `parity check`, `parity mistakes`, `parity fuzz`, `parity port`,
`parity verify`.

Results go to stdout; progress, warnings and a user's mistakes to stderr.

Only click is imported here; what a command needs is imported when it runs, so that `parity --help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO, TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

import click

from parity.errors import FileError, ParityError, SubjectError, UsageError

if TYPE_CHECKING:
    from parity.report import Report

__all__ = ["main"]

BUG = 70  # EX_SOFTWARE of sysexits.h: Python's own 1 would say that a tensor differs
INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status. arguments: None for those of the process."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by a caller who wants the status only
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, it stays open to the end
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the encoding lacks is no reason to fail
    status = _status(arguments)
    if status == INTERRUPTED:
        # Past Python's own exit, which ends by SIGINT instead of a status if the interruption passed through an exec().
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _status(arguments: Sequence[str] | None) -> int:
    """The exit status. Whatever is neither a user's mistake nor an interruption is a bug, and shows its traceback."""
    try:
        return cli.main(arguments, prog_name="parity", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ParityError as error:
        from parity.report.text import printable

        # Lines are those of a message about somebody's code; in a name from a file, a newline is not printable.
        lines = str(error).splitlines() if isinstance(error, SubjectError) else [str(error)]
        print("parity: " + "\n".join(printable(line) for line in lines), file=sys.stderr)
        return error.exit_status
    except click.Abort:  # what click makes of Ctrl-C
        print("parity: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        print("parity: this is a bug in parity, not in the network: nothing was concluded; please report the traceback "
              "above, with the command and the model", file=sys.stderr)  # fmt: skip
        return BUG


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        try:
            click.echo(f"parity {metadata.version('scratchnet-parity')}")
        except metadata.PackageNotFoundError:
            click.echo("parity (run from its source, not installed)")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
              help="Show the version and exit.")  # fmt: skip
def cli() -> None:
    """Is this network really the same as the Keras one, and if not, exactly what is wrong?"""


EXIT_STATUS = """\b
Exit status:
    0  both sides compute the same
    1  a tensor differs, or your own code raises
    2  wrong usage
    3  nothing can be concluded: nothing was compared, the comparison could not
       have failed, or TensorFlow or Keras is not installed
    4  a file that cannot be used
   70  a bug in parity, with its traceback: please report it
  130  interrupted (Ctrl-C)
"""


@cli.command(epilog=EXIT_STATUS)
@click.argument("network", required=False, metavar="[NAME|FILE]")
@click.option("--data", metavar="mnist|digits|PATH",
              help="Images for networks that take 28x28 pixels in any form (28x28, 28x28x1, 784) and have ten outputs: "
              "MNIST through Keras's loader, the bundled digits, or a .npz file. Default: MNIST where Keras has it in "
              "its cache, else the bundled digits.")  # fmt: skip
@click.option("--subject", metavar="FILE.py:FUNCTION",
              help="Your own network in place of scratchnet: a function without arguments that returns what "
              "parity.subject(...) makes. The file runs as Python code.")  # fmt: skip
@click.option("--batch", type=int, metavar="N", help="How many samples. Default: 32.")
@click.option("--dtype", default="both", metavar="float32|float64|both", show_default=True,
              help="float64 asks whether the derivation is right, float32 whether the arithmetic is.")  # fmt: skip
@click.option("--loss", metavar="NAME", help="A loss by its Keras name, in place of those that the network comes with.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    show_default=True,
    help="Of designed weights and samples.",
)
@click.option("--json", "as_json", is_flag=True, help="The report as JSON instead of text.")
def check(
    network: str | None,
    data: str | None,
    subject: str | None,
    batch: int | None,
    dtype: str,
    loss: str | None,
    seed: int,
    as_json: bool,
) -> int:
    """Compare scratchnet, or your own network, with Keras on TensorFlow: every output, the loss, every gradient.

    NAME is sigmoid-500, tanh-16, lenet-5, normalized, or a built-in case ("cases" for all of them); FILE is a saved
    model.keras or a config.json. Without either: sigmoid-500 and tanh-16 with all their losses.
    """
    from parity import pipeline, subjects

    brought = None if subject is None else subjects.load(subject)
    with _progress() as progress:
        report = pipeline.check(
            network, brought, data=data, batch=batch, dtype=dtype, loss=loss, seed=seed, progress=progress
        )
    _write(report.to_json() + "\n" if as_json else _text(report))
    return report.exit_status


@cli.command()
@click.option("--score", "with_score", is_flag=True,
              help="Plant each of them in networks of three sizes, in float32 and float64, and count what is "
              "found.")  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, metavar="N", show_default=True, help="Of weights and samples."
)
def mistakes(with_score: bool, seed: int) -> int:
    """The catalogue of known mistakes in backpropagation, or how many of them the checker finds.

    With --score the exit status is 0 only if no mistake was missed and no correct network was called wrong, else 1.
    """
    from parity import mistakes, score
    from parity.report.score import render_catalogue, render_score

    if not with_score:
        _write(render_catalogue(mistakes.catalogue()) + "\n")
        return 0
    with _progress() as progress:
        result = score.score(seed=seed, progress=progress)
    _write(render_score(result) + "\n")
    return 0 if result.passed else 1


@cli.command()
@click.option("--cases", type=int, default=100, metavar="N", show_default=True, help="How many networks.")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", show_default=True, help="Which networks.")
def fuzz(cases: int, seed: int) -> int:
    """Compare random networks; the first that fails is made as small as possible and printed as code.

    The exit status is 0 if all agree, 1 if one fails, 3 if nothing can be concluded.
    """
    from parity import fuzz

    with _progress() as progress:
        result = fuzz.run(cases, seed, progress)
    if result.failure is not None:
        _write(f"{result.failure.code}\n")
    said = f"No: {result.failure.reason}" if result.failure else f"{result.cases} random networks, no false alarm"
    odd = f"; in {len(result.odd)} of them TensorFlow contradicts itself" if result.odd else ""
    _write(f"{said}; {result.powerless} could not have failed{odd}; {result.elapsed:.0f} s; seed {seed}.\n")
    return result.exit_status


@cli.command()
@click.argument("source")
@click.argument("target")
@click.option("--model", metavar="FILE",
              help="The network, a .keras or .json file, where neither SOURCE nor TARGET says what it is.")  # fmt: skip
@click.option("--naming", metavar="keras|torch|flax",
              help="How the weights are called: in TARGET if its names are free (default: keras; in a .pt: torch), "
              "else in SOURCE; or torch:keras for both.")  # fmt: skip
@click.option("--layout", metavar="NAME",
              help="How arrays such as W1, b1 hold the weights: rows, columns, flat ... (docs/porting.md has them "
              "all), or rows:columns for both files.")  # fmt: skip
@click.option("--map", "pairs", multiple=True, metavar="TARGET=SOURCE",
              help="A weight or a layer of the network, and the key or prefix that it is under. Any number of "
              "times.")  # fmt: skip
@click.option("--probe", metavar="FILE.npz",
              help="Inputs x and the outputs of the network for them, to choose between several ways to "
              "match.")  # fmt: skip
@click.option("--dtype", metavar="NAME", help="Of the file that is written. Default: that of SOURCE.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--allow-nonfinite", is_flag=True, help="Port NaN and infinity, too.")
@click.option("--no-proof", is_flag=True, help="Do not read the target back and run the network with it.")
@click.option("--json", "as_json", is_flag=True, help="The plan and the result as JSON instead of text.")
def port(
    source: str,
    target: str,
    model: str | None,
    naming: str | None,
    layout: str | None,
    pairs: tuple[str, ...],
    probe: str | None,
    dtype: str | None,
    dry_run: bool,
    allow_nonfinite: bool,
    no_proof: bool,
    as_json: bool,
) -> int:
    """Move weights from one file to another, between Keras, PyTorch, Flax and the layouts of tutorials.

    The plan says for each weight where it comes from, what is done to it, and why; what is ambiguous is an error.
    TARGET is the old file or the whole new one, is then read back, and the network is run with it. Exit status: 0 done,
    1 done and the proof failed, 2 wrong usage or ambiguous, 4 a file that cannot be used.
    """
    from parity.porting import port
    from parity.weights.port import probe_from

    report = port(
        source, target, model=model, naming=naming, layout=layout, map=_pairs(pairs), dtype=dtype, dry_run=dry_run,
        probe=None if probe is None else probe_from(probe), allow_nonfinite=allow_nonfinite,
        proof=not no_proof,
    )  # fmt: skip
    _write(f"{report.to_json() if as_json else report.to_text()}\n")
    return report.exit_status


@cli.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON instead of text.")
def verify(file: str, as_json: bool) -> int:
    """Check a file of weights against the parity record that `parity port` put into it.

    Every array is hashed; then the network is run in scratchnet, and in Keras where it is installed, and has to compute
    what the record says. Exit status: 0 verified, 1 something differs, 3 no record, 4 a file that cannot be used.
    """
    from parity.weights.verification import verify

    result = verify(file)
    _write(f"{result.to_json() if as_json else result.to_text()}\n")
    return result.exit_status


def _pairs(given: Sequence[str]) -> dict[str, str]:
    """TARGET=SOURCE, split at the first sign; each target once."""
    pairs: dict[str, str] = {}
    for pair in given:
        target, sign, source = pair.partition("=")
        if not (target and sign and source) or target in pairs:
            raise UsageError(f"--map: expected TARGET=SOURCE, each target once; received {pair!r}")
        pairs[target] = source
    return pairs


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A spinner that says what is being done, on stderr and only where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda message: None
        return
    from rich.console import Console
    from rich.text import Text

    # On a file descriptor of its own: while TensorFlow starts, the runner holds back what is written to the usual one.
    with (
        open(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="backslashreplace") as stream,
        Console(file=stream).status("reading the network") as status,
    ):
        yield lambda message: status.update(Text(message))


def _text(report: Report) -> str:
    """The report as stdout can show it: in colour on a terminal (rich reads NO_COLOR), and fitted to its width."""
    from rich.console import Console
    from rich.text import Text

    from parity.report import text

    on_terminal = sys.stdout.isatty()
    shown = StringIO()
    console = Console(file=shown, force_terminal=on_terminal or None, soft_wrap=True)
    marks = text.MARKS if _can_show_marks() else text.ASCII_MARKS
    for line in text.lines(report, console.width if on_terminal else None, marks):
        console.print(Text(line.text, style=line.colour))
    return shown.getvalue()


def _can_show_marks() -> bool:
    from parity.report.text import MARKS

    try:
        "".join(MARKS.values()).encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _write(output: str) -> None:
    """Write to stdout. A reader such as `head` may leave early: the verdict stands. A full disk is an error."""
    try:
        sys.stdout.write(output)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more as it exits; what is left has to go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise FileError(f"the report cannot be written to standard output: {error.strerror}") from error
