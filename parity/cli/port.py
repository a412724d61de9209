"""`parity port` and `parity verify`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from parity.cli.output import write
from parity.errors import UsageError

__all__ = ["port", "verify"]


@click.command()
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
    write(f"{report.to_json() if as_json else report.to_text()}\n")
    return report.exit_status


@click.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON instead of text.")
def verify(file: str, as_json: bool) -> int:
    """Check a file of weights against the parity record that `parity port` put into it.

    Every array is hashed; then the network is run in scratchnet, and in Keras where it is installed, and has to compute
    what the record says. Exit status: 0 verified, 1 something differs, 3 no record, 4 a file that cannot be used.
    """
    from parity.weights.verification import verify

    result = verify(file)
    write(f"{result.to_json() if as_json else result.to_text()}\n")
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
