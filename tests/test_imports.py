"""Who may import whom, and what `import scratchnet, parity` loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

FRAMEWORKS = {"h5py", "jax", "keras", "tensorflow", "torch"}

# From top to bottom: a module imports from its own row and from the rows below it.
SCRATCHNET_ROWS = (
    {"training", "gradcheck"},
    {"sequential"},
    {"layers", "losses", "metrics", "optimizers"},
    {"activations", "initializers", "regularizers"},
    {"registry", "philox", "seeding"},
)
PARITY_ROWS = (
    {"cli", "pytest_plugin"},
    {"porting"},
    {"pipeline", "golden", "fuzz", "score"},
    {"own", "reproduce", "training"},
    {"models", "cases", "inputs", "kinks", "oracle", "power", "precision", "data", "known", "environment"},
    {"report"},
    {"conventions"},
    {"diagnose"},
    {"mistakes"},
    {"runners", "weights", "compare"},
    {"subjects"},
    {"parameters", "calling"},
    {"trace", "budget", "spec", "probe", "config"},
)
# Which part of scratchnet a module of parity may know; the others none.
KNOWS_SCRATCHNET = {
    "parity.cases": "scratchnet",
    "parity.fuzz": "scratchnet",
    "parity.golden.replay": "scratchnet",
    "parity.oracle": "scratchnet",
    "parity.runners.foreign": "scratchnet",
    "parity.runners.scratch": "scratchnet",
    "parity.runners.steps": "scratchnet",
    "parity.spec": "scratchnet.registry",
    "parity.weights.skeleton": "scratchnet",
    "parity.weights.optimizers.stepping": "scratchnet.optimizers",  # makes the steps of an SGD that lies in a file
}
KNOWS_FRAMEWORKS = ("parity.runners", "parity.data", "parity.weights")
KNOWS_ARRAYS_ONLY = ("parity.compare", "parity.report", "parity.budget", "parity.trace")


class Import(NamedTuple):
    """`module` imports `target`, a dotted name; `loads` when importing `module` does so too."""

    module: str
    target: str
    line: int
    loads: bool

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}: imports {self.target}"


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def modules(package: str) -> dict[str, Path]:
    """Every module of a package of this repository: dotted name -> file."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, module: str, is_package: bool = False) -> list[Import]:
    """All imports in the text of a module, those inside functions and under TYPE_CHECKING included."""
    return [
        Import(module, target, node.lineno, loads)
        for node, loads in _walk(ast.parse(source), loads=True)
        for target in _targets(node, module if is_package else module.rpartition(".")[0])
    ]


def _walk(node: ast.AST, loads: bool) -> Iterator[tuple[ast.AST, bool]]:
    yield node, loads
    for field, value in ast.iter_fields(node):
        deferred = (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and field == "body") or (
            isinstance(node, ast.If) and field == "body" and ast.unparse(node.test).endswith("TYPE_CHECKING")
        )
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child, loads and not deferred)


def _targets(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    origin = node.module or ""
    if node.level:
        base = package.split(".")
        origin = ".".join(base[: len(base) - node.level + 1] + ([node.module] if node.module else []))
    return [f"{origin}.{alias.name}" for alias in node.names]


def foreign_to_scratchnet(found: list[Import]) -> list[Import]:
    """Imports of scratchnet that are neither NumPy, SciPy, the standard library nor scratchnet."""
    known = {"numpy", "scipy", "scratchnet", *sys.stdlib_module_names}
    return [each for each in found if each.target.partition(".")[0] not in known]


def upward(found: list[Import], package: str, rows: tuple[set[str], ...]) -> list[Import]:
    """Imports from a lower row of `package` into a higher one. Names in no row, the package itself too, are free."""

    def row(name: str) -> int | None:
        part = name.removeprefix(package + ".").partition(".")[0] if within(name, package) else ""
        return next((i for i, names in enumerate(rows) if part in names), None)

    pairs = [(each, row(each.module), row(each.target)) for each in found]
    return [each for each, here, there in pairs if here is not None and there is not None and there < here]


def of_the_whole(found: list[Import], package: str, rows: tuple[set[str], ...]) -> list[Import]:
    """Imports inside `package` that name no row: `from package import Thing` goes through everything at once."""
    parts = set().union(*rows)
    return [
        each
        for each in found
        if each.module != package
        and within(each.target, package)
        and each.target.removeprefix(package).lstrip(".").partition(".")[0] not in parts
    ]


def loaded_frameworks(found: list[Import]) -> list[Import]:
    """Frameworks that importing the module would load."""
    return [each for each in found if each.loads and each.target.partition(".")[0] in FRAMEWORKS]


def misplaced_frameworks(found: list[Import]) -> list[Import]:
    """Frameworks imported, even inside a function, by a module that has no business with one."""
    return [
        each
        for each in found
        if each.target.partition(".")[0] in FRAMEWORKS
        and not any(within(each.module, place) for place in KNOWS_FRAMEWORKS)
    ]


def uses_of_scratchnet(found: list[Import]) -> list[Import]:
    """Imports of scratchnet by a module of parity that must work on data alone."""
    return [
        each
        for each in found
        if within(each.target, "scratchnet")
        and not (each.module in KNOWS_SCRATCHNET and within(each.target, KNOWS_SCRATCHNET[each.module]))
    ]


def uses_of_runners(found: list[Import]) -> list[Import]:
    """Imports of a runner by a module that must work on saved traces."""
    return [
        each
        for each in found
        if within(each.target, "parity.runners") and any(within(each.module, place) for place in KNOWS_ARRAYS_ONLY)
    ]


def upward_in_scratchnet(found: list[Import]) -> list[Import]:
    return upward(found, "scratchnet", SCRATCHNET_ROWS) + of_the_whole(found, "scratchnet", SCRATCHNET_ROWS)


def upward_in_parity(found: list[Import]) -> list[Import]:
    return upward(found, "parity", PARITY_ROWS)


RULES = [
    ("scratchnet", foreign_to_scratchnet),
    ("scratchnet", upward_in_scratchnet),
    ("scratchnet", loaded_frameworks),
    ("parity", upward_in_parity),
    ("parity", loaded_frameworks),
    ("parity", misplaced_frameworks),
    ("parity", uses_of_scratchnet),
    ("parity", uses_of_runners),
]


@pytest.mark.parametrize(("package", "rule"), RULES, ids=lambda value: getattr(value, "__name__", value))
def test_the_rule_holds(package, rule):
    found = [
        each
        for module, path in modules(package).items()
        for each in imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    ]
    assert found, f"no import found in {package}: nothing was checked"
    assert [str(each) for each in rule(found)] == []


def test_every_module_of_scratchnet_has_its_row():
    parts = {module.split(".")[1] for module in modules("scratchnet") if "." in module}
    assert parts <= set().union(*SCRATCHNET_ROWS)


# One violation a line, each beside its nearest lawful neighbour.
PLANTED = [
    (foreign_to_scratchnet, "scratchnet.losses", "import click", "import math, numpy.linalg"),
    (foreign_to_scratchnet, "scratchnet.losses", "from parity.trace import Trace", "from scipy.special import erf"),
    (upward_in_scratchnet, "scratchnet.activations", "from scratchnet import losses", "import scratchnet.registry"),
    (upward_in_scratchnet, "scratchnet.layers.core", "from ..training import fit", "from ..losses import Loss"),
    (upward_in_scratchnet, "scratchnet.losses", "from scratchnet import Sequential", "from .registry import get"),
    (upward_in_scratchnet, "scratchnet.registry", "def f():\n    import scratchnet.layers", "import scratchnet.philox"),
    (upward_in_parity, "parity.trace", "from parity.compare import compare", "from parity.spec import Spec"),
    (upward_in_parity, "parity.runners.keras", "import parity.pipeline", "import parity.trace"),
    (loaded_frameworks, "parity.data", "import keras.datasets", "def f():\n    import keras.datasets"),
    (loaded_frameworks, "parity.data", "try:\n    import h5py\nexcept ImportError: pass", "import json"),
    (loaded_frameworks, "parity.data", "class A:\n    import torch", "if TYPE_CHECKING:\n    import torch"),
    (loaded_frameworks, "parity.data", "if not TYPE_CHECKING:\n    pass\nelse:\n    import jax", "import numpy"),
    (misplaced_frameworks, "parity.pipeline", "def f():\n    import keras", "def f():\n    import json"),
    (misplaced_frameworks, "parity.runnersx", "def f():\n    import torch", "import torchless"),
    (uses_of_scratchnet, "parity.pipeline", "from scratchnet.losses import Loss", "import parity.cases"),
    (uses_of_scratchnet, "parity.spec", "from scratchnet import losses", "from scratchnet import registry"),
    (uses_of_runners, "parity.compare", "def f():\n    from parity.runners import keras", "import parity.trace"),
    (uses_of_runners, "parity.report.text", "from ..runners import keras", "from ..trace import Trace"),
]


@pytest.mark.parametrize(("rule", "module", "wrong", "right"), PLANTED)
def test_a_planted_violation_is_found(rule, module, wrong, right):
    assert rule(imports(wrong, module))
    assert not rule(imports(right, module))


def modules_after(code: str) -> set[str]:
    """The names of all modules that a fresh interpreter holds after running `code`."""
    script = f"{code}\nimport sys\nprint()\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


HELP = """
import sys
from parity.cli import main
sys.argv = ["parity", "--help"]
try:
    main()
except SystemExit as exit:
    assert not exit.code, exit.code
"""


@pytest.mark.parametrize("code", ["import scratchnet, parity", HELP], ids=["import", "parity --help"])
def test_no_framework_is_loaded(code):
    assert not modules_after(code) & FRAMEWORKS


@pytest.mark.parametrize("module", ["parity", "parity.config", "parity.errors", "parity.pytest_plugin"])
def test_what_a_pytest_run_may_load_at_its_start_is_light(module):
    loaded = modules_after(f"import {module}")
    assert {name for name in loaded if within(name, "parity")} == {"parity", "parity.errors", module}
    assert not loaded & {"click", "numpy", "rich", "scipy", "scratchnet"}


def test_a_loaded_module_would_be_seen():
    assert "wave" in modules_after("import wave")
    assert "wave" not in modules_after("pass")
