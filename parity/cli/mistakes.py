"""`parity mistakes`."""

from __future__ import annotations

import click

from parity.cli.output import progress, write

__all__ = ["mistakes"]


@click.command()
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
        write(render_catalogue(mistakes.catalogue()) + "\n")
        return 0
    with progress() as say:
        result = score.score(seed=seed, progress=say)
    write(render_score(result) + "\n")
    return 0 if result.passed else 1
