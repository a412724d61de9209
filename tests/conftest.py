"""What every test may ask for: Keras on TensorFlow, its recorded answers, PyTorch, and the MNIST file."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

# How long an example takes is the machine's affair: the first one may load or trace TensorFlow.
hypothesis.settings.register_profile("parity", deadline=None)
hypothesis.settings.load_profile("parity")


def _beside(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recorded = _beside("recorded")
KERAS = ("tensorflow", "keras")
BOOK = pytest.StashKey[recorded.Book]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-answers",
        action="store_true",
        help="ask Keras and record what it says, for tests that run where TensorFlow is not installed (with -n 0)",
    )


def pytest_configure(config: pytest.Config) -> None:
    record = config.getoption("--record-answers")
    installed = not _missing(KERAS)
    if record and (refusal := recorded.refusal(config, installed)):
        raise pytest.UsageError(refusal)
    book = config.stash[BOOK] = recorded.Book(installed, record)
    if record:
        config.pluginmanager.register(recorded.Recorder(book))


def require_tensorflow() -> None:
    """Skip the running test where TensorFlow or Keras is missing; fail it where PARITY_REQUIRE_TF=1 promises both."""
    _require(KERAS, "tf", "PARITY_REQUIRE_TF")


def require_torch() -> None:
    """The same for PyTorch and PARITY_REQUIRE_TORCH=1."""
    _require(("torch",), "torch", "PARITY_REQUIRE_TORCH")


def _require(names: tuple[str, ...], extra: str, promise: str) -> None:
    missing = _missing(names)
    if not missing:
        return
    message = f"{' and '.join(missing)} not installed; install with: python -m pip install -e '.[{extra}]'"
    if os.environ.get(promise) == "1":
        pytest.fail(f"{promise}=1, but {message}", pytrace=False)
    pytest.skip(message)


def _missing(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


@pytest.hookimpl(tryfirst=True)  # before `-m` is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for the fixture `torch` needs PyTorch, and has said so by that."""
    for item in items:
        if "torch" in getattr(item, "fixturenames", ()):
            item.add_marker("torch")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("tensorflow"):
        require_tensorflow()
    if item.get_closest_marker("torch"):
        require_torch()


@pytest.fixture(autouse=True, scope="module")
def fresh_names() -> None:
    """Keras numbers the layers of a process; a file's first Dense is `dense`, whichever files ran before it."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session(free_memory=False)


@pytest.fixture(scope="session")
def keras() -> ModuleType:
    """Keras on its TensorFlow backend. Tests that ask for it carry `@pytest.mark.tensorflow`."""
    require_tensorflow()
    return recorded.imported_keras()


@pytest.fixture(scope="session")
def lazy_keras() -> type:
    """The class of a Keras that is imported when it is first used: inside of what the fixture `answers` is given."""
    return recorded.LazyKeras


@pytest.fixture
def answers(request: pytest.FixtureRequest) -> "recorded.Answers":
    """answers(lambda: what Keras says): live and compared with the record where TensorFlow is installed, else recorded.

    Not for `@given`: the answers to a test have numbers.
    """
    node, book = request.node, request.config.stash[BOOK]
    if not book.installed and os.environ.get("PARITY_REQUIRE_TF") == "1":
        require_tensorflow()
    slow = node.get_closest_marker("slow") is not None
    asked = node.stash[recorded.ASKED] = recorded.Answers(book, node.path, recorded.name_of(node), slow)
    if not book.installed:
        said = f"What Keras says was read from a file. If the test asks for something else by now: {asked.command}"
        node.add_report_section("call", "answers", said)
    return asked


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch. Tests that ask for it get the mark `torch` by that."""
    require_torch()
    return importlib.import_module("torch")


@pytest.fixture
def parity(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process -> (status, stdout, stderr)."""
    from parity.cli import main

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exited:
            main(arguments)
        status = exited.value.code
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def mnist_path() -> Path:
    """The file that PARITY_MNIST names; a name without a file is a mistake, not a reason to skip."""
    name = os.environ.get("PARITY_MNIST")
    if not name:
        pytest.skip("PARITY_MNIST is not set; it names a local mnist.npz")
    if not (path := Path(name)).is_file():
        pytest.fail(f"PARITY_MNIST: expected a file, found none at {path}", pytrace=False)
    return path
