"""`parity report`."""

from __future__ import annotations

import click

from parity.cli.delivery import Outputs, deliver, outputs

__all__ = ["report"]


@click.command()
@click.argument("file")
@outputs
def report(file: str, outputs: Outputs) -> int:
    """Judge and show again what `parity check --json` saved, without a run.

    The verdict is worked out from the rows of FILE, not believed. Exit status: that of the check, or 4 for a file that
    cannot be used: damaged, written by a later parity, or changed so that it contradicts its own rows.
    """
    from parity.report.loaded import load

    return deliver(load(file), outputs)
