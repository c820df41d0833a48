"""Asking a device whether it still works."""

from __future__ import annotations

import pytest
import torch

from inference.musetalk.device import DTYPES, Device


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_device_that_works_passes_in_any_precision(dtype: str) -> None:
    Device.choose("cpu", dtype).check()


def test_a_device_that_computes_nothing_does_not_pass() -> None:
    nothing = Device(torch.device("meta"), torch.float32)

    with pytest.raises(RuntimeError):
        nothing.check()
