"""What every test may ask for: Keras on TensorFlow, and the MNIST file."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

# How long an example takes is the machine's affair: the first one may load or trace TensorFlow.
hypothesis.settings.register_profile("parity", deadline=None)
hypothesis.settings.load_profile("parity")


def require_tensorflow() -> None:
    """Skip the running test where TensorFlow or Keras is missing; fail it where PARITY_REQUIRE_TF=1 promises both."""
    missing = [name for name in ("tensorflow", "keras") if importlib.util.find_spec(name) is None]
    if not missing:
        return
    message = f"{' and '.join(missing)} not installed; python -m pip install -e '.[tf]' brings both"
    if os.environ.get("PARITY_REQUIRE_TF") == "1":
        pytest.fail(f"PARITY_REQUIRE_TF=1, but {message}", pytrace=False)
    pytest.skip(message)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("tensorflow"):
        require_tensorflow()


@pytest.fixture(autouse=True, scope="module")
def fresh_names() -> None:
    """Keras numbers the layers of a process; a file's first Dense is `dense`, whichever files ran before it."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session(free_memory=False)


@pytest.fixture(scope="session")
def keras() -> ModuleType:
    """Keras on its TensorFlow backend. Tests that ask for it carry `@pytest.mark.tensorflow`."""
    require_tensorflow()
    os.environ["KERAS_BACKEND"] = "tensorflow"  # a user's ~/.keras/keras.json may name another
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return importlib.import_module("keras")


@pytest.fixture(scope="session")
def mnist_path() -> Path:
    """The file that PARITY_MNIST names; a name without a file is a mistake, not a reason to skip."""
    name = os.environ.get("PARITY_MNIST")
    if not name:
        pytest.skip("PARITY_MNIST is not set; it names a local mnist.npz")
    if not (path := Path(name)).is_file():
        pytest.fail(f"PARITY_MNIST: expected a file, found none at {path}", pytrace=False)
    return path
