"""The command line: one file for each group of commands, `output` for what they share.

Results go to stdout; progress, warnings and a user's mistakes to stderr.

Only click is imported here and in the files of the commands; what a command needs is imported when it runs, so that
`parity --help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

import click

from parity.cli import check, drift, fuzz, golden, mistakes, port, report, settings
from parity.errors import ParityError, SubjectError

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


for command in (
    check.check,
    drift.diff,
    drift.matrix,
    golden.record,
    golden.replay,
    golden.goldens,
    mistakes.mistakes,
    fuzz.fuzz,
    port.port,
    port.verify,
    report.report,
    settings.config,
    settings.env,
):
    cli.add_command(command)
