"""Import TensorFlow and Keras without their start-up lines, and keep their global settings as they were."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from parity.errors import NothingConcluded

__all__ = ["dtype_policy", "imported", "precision", "versions"]

START_UP = (
    "All log messages before absl::InitializeLog",
    "oneDNN custom operations are on",
    "Could not find cuda drivers",
    "failed call to cuInit",
    "To enable the following instructions",
    "This TensorFlow binary is optimized",
    "Unable to register cu",
    "TF-TRT Warning",
    "computation placer already registered",
)


def imported() -> tuple[Any, Any]:
    """(tensorflow, keras). `NothingConcluded` where they are not installed or Keras runs on another backend."""
    if "tensorflow" in sys.modules and "keras" in sys.modules:
        return sys.modules["tensorflow"], sys.modules["keras"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _quiet_start():
            import tensorflow

            tensorflow.config.list_physical_devices()  # looks for a GPU, and says so
            import keras
    except ImportError as error:
        raise NothingConcluded(
            f"the reference is not installed: {error}. Install it with: python -m pip install 'scratchnet-parity[tf]'"
        ) from error
    if keras.backend.backend() != "tensorflow":
        raise NothingConcluded(
            f"Keras runs on the backend {keras.backend.backend()!r}; the comparison needs 'tensorflow' "
            "(unset KERAS_BACKEND, or look at ~/.keras/keras.json)"
        )
    return tensorflow, keras


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Keras in this dtype as a whole (layers, loss, learning rate), and no TensorFloat-32; then as it was before."""
    tensorflow, keras = imported()
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    tensor_float = tensorflow.config.experimental.tensor_float_32_execution_enabled()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    tensorflow.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
        tensorflow.config.experimental.enable_tensor_float_32_execution(tensor_float)


def versions() -> dict[str, Any]:
    """What of the machine and the settings moves TensorFlow's last bits."""
    tensorflow, keras = imported()
    return {
        "tensorflow": tensorflow.__version__,
        "keras": keras.__version__,
        "intra_op_threads": tensorflow.config.threading.get_intra_op_parallelism_threads() or _threads(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0",
        "tensor_float_32": tensorflow.config.experimental.tensor_float_32_execution_enabled(),
        "dtype_policy": dtype_policy(),
        "flushes_subnormals": _flushes(tensorflow),
        "gpus": len(tensorflow.config.list_physical_devices("GPU")),
    }


def _threads() -> int | None:
    """As many as TensorFlow takes where the program does not say."""
    told = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return (int(told) if told.isdecimal() else 0) or os.cpu_count()


def dtype_policy() -> str:
    """Keras's global dtype policy: outside `precision` the caller's own, such as mixed_float16."""
    _, keras = imported()
    name: str = keras.config.dtype_policy().name
    return name


def _flushes(tensorflow: Any) -> bool:
    """Whether results below the smallest normal number become 0, as they do in TensorFlow's CPU kernels."""
    return float(tensorflow.constant(2.0**-120, "float32") * tensorflow.constant(2.0**-20, "float32")) == 0


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """TensorFlow's C++ side writes to file descriptor 2 before it reads its log level: hold that back, and pass on
    whatever is not one of its known start-up lines."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if line.strip() and not any(known in line for known in START_UP):
                    print(line, file=sys.stderr)
