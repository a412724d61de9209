"""`parity fuzz`."""

from __future__ import annotations

import click

from parity.cli.output import progress, write

__all__ = ["fuzz"]


@click.command()
@click.option("--cases", type=int, default=100, metavar="N", show_default=True, help="How many networks.")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", show_default=True, help="Which networks.")
def fuzz(cases: int, seed: int) -> int:
    """Compare random networks; the first that fails is made as small as possible and printed as code.

    The exit status is 0 if all agree, 1 if one fails, 3 if nothing can be concluded.
    """
    from parity import fuzz

    with progress() as say:
        result = fuzz.run(cases, seed, say)
    if result.failure is not None:
        write(f"{result.failure.code}\n")
    said = f"No: {result.failure.reason}" if result.failure else f"{result.cases} random networks, no false alarm"
    odd = f"; in {len(result.odd)} of them TensorFlow contradicts itself" if result.odd else ""
    write(f"{said}; {result.powerless} could not have failed{odd}; {result.elapsed:.0f} s; seed {seed}.\n")
    return result.exit_status
