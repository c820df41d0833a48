"""Where the networks run and in which precision: the one place that knows of CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handler.errors import WorkerBroken
from inference.batching import MemoryExhausted

MEBIBYTE = 1024**2

#: Which PyTorch this is, and which CUDA it was built for; None for none.
TORCH_VERSION = str(torch.__version__)
CUDA_VERSION: str | None = torch.version.cuda

#: Want of memory, in the words of the CPU's allocator, of pinned memory, and of cuBLAS and cuDNN.
NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
#: Side of the matrices that a device is tried with: their products are exact in any precision.
CHECK_SIDE = 64
#: The precisions that a worker can be told to use.
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class Device:
    """Hold a device and the precision of the generating networks on it."""

    place: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, place: str = "auto", dtype: str = "auto") -> Device:
        """Take what is asked for; ``auto`` is CUDA where there is one, half precision on it.

        Raises ``ValueError`` for a device that is not there.
        """
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if place == "auto":
            place = "cuda" if there else "cpu"
        chosen = torch.device(place)
        if chosen.type == "cuda" and (chosen.index or 0) >= there:
            raise ValueError(f"{place} was asked for, and there are {there} CUDA devices.")
        if dtype == "auto":
            dtype = "float16" if chosen.type == "cuda" else "float32"
        return cls(chosen, DTYPES[dtype])

    @property
    def name(self) -> str:
        """Return what the device calls itself."""
        return torch.cuda.get_device_name(self.place) if self.is_cuda else "cpu"

    @property
    def is_cuda(self) -> bool:
        """Tell whether work is queued on a GPU, rather than done at once."""
        return self.place.type == "cuda"

    @property
    def cuda(self) -> str | None:
        """Return the version of CUDA that work is done with; None where it is done without."""
        return CUDA_VERSION if self.is_cuda else None

    @property
    def layout(self) -> torch.memory_format:
        """Return the order of pictures in memory that suits the kernels of the device.

        With channels last, PyTorch's group normalisation on a CPU loses half of the digits where
        half of a picture is black, as it is here: 4e-4 instead of 5e-8 after one layer.
        """
        return torch.channels_last if self.is_cuda else torch.contiguous_format

    def send(self, arrays: Sequence[NDArray[Any]]) -> torch.Tensor:
        """Return arrays of one shape as one tensor on the device; a GPU need not be waited for."""
        stacked = torch.from_numpy(np.stack(arrays))
        if self.is_cuda:
            stacked = stacked.pin_memory()
        return stacked.to(self.place, non_blocking=True)

    def receive(self, tensor: torch.Tensor) -> Callable[[], NDArray[Any]]:
        """Begin to copy a tensor from the device; the returned function waits for it."""
        if not self.is_cuda:
            return tensor.numpy
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        done = torch.cuda.current_stream(self.place).record_event()

        def wait() -> NDArray[Any]:
            with working():
                done.synchronize()
            return host.numpy()

        return wait

    def reset_peak(self) -> None:
        """Begin to watch for the peak of the device's memory."""
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats(self.place)

    def peak_mib(self) -> float | None:
        """Return the peak since then in MiB; None where the memory is the machine's own."""
        if not self.is_cuda:
            return None
        return round(torch.cuda.max_memory_allocated(self.place) / MEBIBYTE, 1)

    def check(self) -> None:
        """Multiply two small matrices and wait for the product.

        Raises :class:`WorkerBroken` if the device is lost or miscalculates.
        """
        with working():
            ones = torch.ones(CHECK_SIDE, CHECK_SIDE, dtype=self.dtype, device=self.place)
            total = (ones @ ones).float().sum().item()
        if total != CHECK_SIDE**3:
            raise WorkerBroken(f"The device takes the sum of {CHECK_SIDE}**3 ones for {total:g}.")


def padded(tensor: torch.Tensor, device: Device, size: int) -> torch.Tensor:
    """Repeat the last of a batch until there are ``size``, where every new shape costs seconds.

    CUDA's kernels are chosen, or compiled, for each shape; a CPU takes any.
    """
    missing = size - len(tensor)
    if missing <= 0 or not device.is_cuda:
        return tensor
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])])


@contextmanager
def working() -> Iterator[None]:
    """Translate what a device reports: no memory, which may pass, or a state that cannot.

    Raises :class:`MemoryExhausted`, or :class:`WorkerBroken` if CUDA is lost for this process.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryExhausted(str(error)) from error
    except RuntimeError as error:
        # For all but CUDA's allocator PyTorch has no type, only these words.
        if any(words in str(error) for words in NO_MEMORY):
            raise MemoryExhausted(str(error)) from error
        if isinstance(error, torch.AcceleratorError):
            message = "The GPU failed, and this process cannot use it any more."
            raise WorkerBroken(message) from error
        raise
