"""`parity check`."""

from __future__ import annotations

import click

from parity.cli.delivery import Outputs, deliver, outputs
from parity.cli.output import progress
from parity.cli.settled import settled

__all__ = ["check"]

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


@click.command(epilog=EXIT_STATUS)
@click.argument("network", required=False, metavar="[NAME|FILE]")
@click.option("--data", metavar="mnist|digits|PATH",
              help="Images for networks that take 28x28 pixels in any form (28x28, 28x28x1, 784) and have ten outputs: "
              "MNIST through Keras's loader, the bundled digits, or a .npz file. Default: MNIST where Keras has it in "
              "its cache, else the bundled digits.")  # fmt: skip
@click.option("--subject", metavar="FILE.py:FUNCTION",
              help="Your own network in place of scratchnet: a function without arguments that returns what "
              "parity.subject(...) makes. The file runs as Python code.")  # fmt: skip
@click.option("--batch", type=int, metavar="N", help="How many samples. Default: 32.")
@click.option("--dtype", metavar="float32|float64|both",
              help="float64 asks whether the derivation is right, float32 whether the arithmetic is. Default: "
              "both.")  # fmt: skip
@click.option("--loss", metavar="NAME", help="A loss by its Keras name, in place of those that the network comes with.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Of designed weights and samples. Default: 0.")
@click.option("--modes", metavar="MODE,...",
              help="How Keras runs, of eager, function and xla. Default: eager,function.")  # fmt: skip
@outputs
def check(
    network: str | None,
    data: str | None,
    subject: str | None,
    batch: int | None,
    dtype: str | None,
    loss: str | None,
    seed: int | None,
    modes: str | None,
    outputs: Outputs,
) -> int:
    """Compare scratchnet, or your own network, with Keras on TensorFlow: every output, the loss, every gradient.

    NAME is sigmoid-500, tanh-16, lenet-5, normalized, or a built-in case ("cases" for all of them); FILE is a saved
    model.keras or a config.json. Without either: sigmoid-500 and tanh-16 with all their losses.

    pyproject.toml and PARITY_* variables may settle other defaults: `parity config` shows them.
    """
    from parity import pipeline, subjects

    settings = settled(data=data, batch=batch, dtype=dtype, seed=seed, modes=modes)
    brought = None if subject is None else subjects.load(subject)
    with progress() as say:
        report = pipeline.check(network, brought, loss=loss, progress=say, **settings)
    return deliver(report, outputs)
