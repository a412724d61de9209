"""`parity record`, `parity replay`, `parity goldens`: recorded references."""

from __future__ import annotations

import click

from parity.cli.delivery import Outputs, deliver, outputs
from parity.cli.output import progress, write
from parity.cli.settled import settled

__all__ = ["goldens", "record", "replay"]


@click.command()
@click.argument("model")
@click.argument("golden")
@click.option("--subject", metavar="FILE.py:FUNCTION",
              help="Your own network, which has to pass as well; a golden made without it is good for it, too. The "
              "file runs as Python code.")  # fmt: skip
@click.option("--loss", metavar="NAME", help="A loss by its Keras name, in place of those that the network comes with.")
@click.option("--data", metavar="mnist|digits|PATH", help="As in parity check.")
@click.option("--batch", type=int, metavar="N", help="How many samples. Default: 32.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Of designed weights and samples. Default: 0.")
@click.option(
    "--modes", metavar="MODE,...", help="How Keras runs, of eager, function and xla. Default: eager,function."
)
@click.option("--steps", type=click.IntRange(min=0), default=0, metavar="N", show_default=True,
              help="Record the first steps of training, too.")  # fmt: skip
@click.option("--sketch-above", type=int, metavar="N",
              help="Keep a tensor of more elements as a sketch, a sum for 64 of them, and designed weights as their "
              "seed. Default: never.")  # fmt: skip
def record(
    model: str,
    golden: str,
    subject: str | None,
    loss: str | None,
    data: str | None,
    batch: int | None,
    seed: int | None,
    modes: str | None,
    steps: int,
    sketch_above: int | None,
) -> int:
    """Check MODEL against Keras, and keep what Keras computed in GOLDEN, to be replayed without TensorFlow.

    MODEL is what parity check takes. GOLDEN is a .safetensors file, or a folder that gets one for each network and
    loss. Nothing is written of a network whose check does not pass. Exit status: that of parity check.
    """
    from parity import subjects
    from parity.golden.record import record

    settings = settled(data=data, batch=batch, seed=seed, modes=modes, sketch_above=sketch_above)
    brought = None if subject is None else subjects.load(subject)
    with progress() as say:
        result = record(model, golden, brought, loss=loss, steps=steps, progress=say, **settings)
    write(f"{result.sentence}\n")
    return result.exit_status


@click.command()
@click.argument("golden", nargs=-1, metavar="[GOLDEN]...")
@click.option("--subject", metavar="FILE.py:FUNCTION",
              help="Your own network in place of scratchnet. The file runs as Python code.")  # fmt: skip
@click.option("--model", metavar="NAME|FILE",
              help="What the goldens have to be of; another network is an error. Default: whatever they are "
              "of.")  # fmt: skip
@outputs
def replay(golden: tuple[str, ...], subject: str | None, model: str | None, outputs: Outputs) -> int:
    """Judge scratchnet, or your own network, against what parity record kept, without TensorFlow.

    GOLDEN is a file or a folder of them; without one, the folder of the configuration (tests/goldens). The budgets are
    those of parity check, since TensorFlow's own last bits move with threads and oneDNN. Exit status: that of parity
    check.
    """
    from parity import config, subjects
    from parity.golden.replay import replay

    brought = None if subject is None else subjects.load(subject)
    with progress() as say:
        report = replay(golden or (config.setting("goldens"),), brought, model=model, progress=say)
    return deliver(report, outputs)


@click.command()
@click.argument("folder", required=False, metavar="[FOLDER]")
@click.option("--verify", is_flag=True, help="Also compare each network with its arrays, as a replay does first.")
@click.option("--prune", is_flag=True,
              help="Remove the goldens that the last complete run of pytest did not ask for, and what killed processes "
              "left.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def goldens(folder: str | None, verify: bool, prune: bool, as_json: bool) -> int:
    """List the recorded references in FOLDER; without it, in the folder of the configuration (tests/goldens).

    Exit status: 0; 4 if one of them cannot be used; 3 if --prune does not know which ones are used.
    """
    import json
    from pathlib import Path

    from parity import config
    from parity.golden import manage

    where = Path(folder or config.setting("goldens"))
    removed = manage.pruned(where, manage.root()) if prune else []
    found = list(manage.found(where, verify))
    if as_json:
        document = {"folder": str(where), "removed": list(map(str, removed)), "goldens": [f.document() for f in found]}
        write(json.dumps(document, indent=2) + "\n")
    else:
        write("".join(f"{line}\n" for line in manage.lines(found, removed)))
    return 4 if any(each.problem for each in found) else 0
