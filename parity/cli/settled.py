"""What flags, variables and pyproject.toml settle together for a command."""

from __future__ import annotations

from typing import Any

__all__ = ["settled"]


def settled(**flags: Any) -> dict[str, Any]:
    """Each of these settings under the name of its argument in `parity.check` and `parity.record`. Images that the
    configuration names, and no flag, do not concern a network that takes no digits."""
    from parity import config
    from parity.inputs import Preferred

    found = config.load(flags={name.replace("_", "-"): value for name, value in flags.items()})
    values = {name: found[name.replace("_", "-")] for name in flags}
    if flags.get("data") is None and values.get("data") is not None:
        values["data"] = Preferred(values["data"])
    return values
