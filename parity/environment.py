"""The machine, the versions and the settings that move the last bits of a result."""

from __future__ import annotations

import os
import platform
from importlib import metadata, util
from typing import Any

import numpy as np
import scipy

from parity.errors import ParityError
from parity.runners import tensorflow as reference

__all__ = ["described", "of_both_sides", "of_numpy"]

PACKAGES = ("keras", "tensorflow", "torch", "h5py", "onnx", "safetensors", "ml_dtypes", "pytest")
"""What parity works with beside NumPy and SciPy, by the name under which it is imported."""

VARIABLES = (
    "BLIS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "KERAS_BACKEND",
    "KERAS_HOME",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_CUDNN_DETERMINISTIC",
    "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_USE_LEGACY_KERAS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
)
"""What moves last bits, or says where Keras keeps its data; beside them all of PARITY_*. Each by its name, because this
is shown to others, and a variable of another program may be a password: Terraform's begin with TF_, too."""

ABSENT = "not installed"


def of_numpy() -> dict[str, Any]:
    """What moves the last bits of NumPy: its side of a comparison, with no framework."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "blas": np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"],
        "blas_threads": _blas_threads(),
    }


def of_both_sides() -> dict[str, Any]:
    """The same with TensorFlow's side, as it is set during a comparison. The dtype policy is the caller's: what the
    same model would be trained in, not what a comparison runs in."""
    with reference.precision("float32"):
        conditions = reference.versions()
    return {**of_numpy(), **conditions, "dtype_policy": reference.dtype_policy()}


def described() -> dict[str, Any]:
    """All of it, as it is set outside of a comparison, in parts that are dicts themselves.

    numpy: `of_numpy`; packages: name -> version, or "not installed"; tensorflow: what TensorFlow says of itself, or
    `unusable`, why it says nothing; variables: those that are set.
    """
    return {
        "numpy": of_numpy(),
        "packages": _packages(),
        "tensorflow": _of_tensorflow(),
        "variables": _variables(),
    }


def _blas_threads() -> int:
    """As many as OpenBLAS is told to take; it ignores what is no number of threads."""
    told = os.environ.get("OPENBLAS_NUM_THREADS", "")
    return (int(told) if told.isdecimal() else 0) or os.cpu_count() or 1


def _packages() -> dict[str, str]:
    """The versions as the metadata has them, without an import."""
    homes = metadata.packages_distributions()  # the module tensorflow may be of the distribution tensorflow-cpu
    found = {name: homes.get(name, [name])[0] for name in PACKAGES if util.find_spec(name) is not None}
    versions = {name: _version(found[name]) if name in found else ABSENT for name in PACKAGES}
    return {"parity": _version("scratchnet-parity"), **versions}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # run from its source
        return "unknown"


def _of_tensorflow() -> dict[str, Any]:
    try:
        conditions = reference.versions()
        tensorflow, _ = reference.imported()
    except ParityError as error:
        return {"unusable": str(error)}
    except Exception as error:  # whatever a broken installation raises is what there is to say about it
        return {"unusable": f"{type(error).__name__}: {error}"}
    devices = tensorflow.config.list_physical_devices("GPU")
    details = [tensorflow.config.experimental.get_device_details(device) for device in devices]
    settings = {key: value for key, value in conditions.items() if key not in PACKAGES}
    return {**settings, "gpus": [detail.get("device_name", "unknown") for detail in details]}


def _variables() -> dict[str, str]:
    return {k: v for k, v in sorted(os.environ.items()) if k in VARIABLES or k.startswith("PARITY_")}
