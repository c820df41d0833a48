"""See that the image's packages fit together and will use the GPU: python build/check_packages.py.

Run while the image is built, where there is no GPU, and with --gpu wherever there is one. Without
its libraries ONNX Runtime would track faces on the CPU and say nothing; here that is an error.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path

import onnxruntime

# First: with it come the libraries that ONNX Runtime needs, as they do in the worker.
import torch

#: Turing, Ampere, Hopper and Blackwell; Ada runs what is made for Ampere.
ARCHITECTURES = frozenset({"sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"})
#: From 12.8 on CUDA knows the consumers' Blackwell, sm_120.
OLDEST_CUDA = (12, 8)
PROVIDER = "CUDAExecutionProvider"
#: The driver's own library, which containers are given when they start.
DRIVER = re.compile(r"libcuda\.so\.1: cannot open shared object file")
#: A network that adds its input, four numbers, to itself (ONNX, operator set 13).
DOUBLING = (
    b'\x08\x08::\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x06doubleZ\x0f\n\x01x\x12'
    b"\n\n\x08\x08\x01\x12\x04\n\x02\x08\x04b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x04B\x04\n\x00\x10\r"
)


def main(words: Sequence[str] | None = None) -> None:
    """Print how each stands, and end in :class:`SystemExit` if one is wrong."""
    parser = argparse.ArgumentParser(description="See that the packages will use the GPU.")
    parser.add_argument("--gpu", action="store_true", help="There is one: use it.")
    told = parser.parse_args(words)
    faults = [*_faults(), *(_gpu_faults() if told.gpu else ())]
    if faults:
        sys.exit("\n".join(faults))
    print(f"torch {torch.__version__} and onnxruntime {onnxruntime.__version__} will use the GPU")


def _faults() -> Iterator[str]:
    cuda = tuple(map(int, (torch.version.cuda or "0.0").split(".")))
    if cuda < OLDEST_CUDA:
        yield f"torch is made for CUDA {torch.version.cuda}: at least 12.8 is needed."
    elif lacks := ARCHITECTURES - _architectures():
        yield f"torch has no kernels for {', '.join(sorted(lacks))}."
    if PROVIDER not in onnxruntime.get_available_providers():
        yield "onnxruntime has no CUDA in it: onnxruntime-gpu must be installed in its place."
        return
    if any(each.name == "onnxruntime" for each in distributions()):
        yield "onnxruntime is installed beside onnxruntime-gpu, which it overwrites: remove it."
    if fault := _library_fault():
        yield f"onnxruntime cannot load its CUDA: {fault}"


def _architectures() -> frozenset[str]:
    # Where there is no GPU, the public list of them is empty.
    return frozenset((torch._C._cuda_getArchFlags() or "").split())  # noqa: SLF001


def _library_fault() -> str | None:
    """Load what ONNX Runtime would load when it is first asked to use CUDA."""
    library = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        # What comes from the driver is not there while an image is built.
        return None if DRIVER.search(str(error)) else str(error)
    return None


def _gpu_faults() -> Iterator[str]:
    if not torch.cuda.is_available():
        yield "torch finds no GPU: see the driver (580 or later), and --gpus all."
        return
    numbers = torch.ones(4, device="cuda")
    session = onnxruntime.InferenceSession(DOUBLING, providers=[PROVIDER])
    if session.get_providers()[0] != PROVIDER:
        yield "onnxruntime falls back to the CPU."
    (doubled,) = session.run(None, {"x": numbers.cpu().numpy()})
    if doubled.tolist() != (numbers + numbers).tolist():
        yield "The GPU miscalculates."


if __name__ == "__main__":
    main()
