"""A GPU that cannot be used is noticed by asking its driver, which may lie, hang or be too old."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.gpu import Card, PyTorch, examine_gpu, judge

TODAY = PyTorch("2.13.0", "13.0")
WITHOUT_CUDA = PyTorch("2.13.0+cpu", None)
LAST_YEARS = PyTorch("2.6.0", "12.4")

#: Put a shell script in the place of the driver's tool.
Driver = Callable[[str], None]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Return what installs a driver; until then there is none."""
    monkeypatch.setenv("PATH", f"{tmp_path}")

    def install(script: str) -> None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return install


def test_pytorch_is_known_without_waiting_for_it() -> None:
    ask = "import sys; from adapters.gpu import PyTorch; print(PyTorch.installed());"
    ask += "assert 'torch' not in sys.modules; import torch;"
    ask += "print(PyTorch(str(torch.__version__), torch.version.cuda))"

    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)

    told, true = done.stdout.splitlines()
    assert told == true


@pytest.mark.parametrize(
    ("version", "pytorch", "complaint"),
    [
        ("580.65.06", TODAY, None),
        ("610.10", TODAY, None),
        ("575.57.08", TODAY, "580 or later"),
        ("570.86.15", TODAY, "580 or later"),
        ("570.86.15", LAST_YEARS, None),
        ("470.82.01", LAST_YEARS, "525 or later"),
        ("580.65.06", WITHOUT_CUDA, "install a PyTorch for CUDA"),
        # CUDA of a day that the table does not know, and no PyTorch at all.
        ("580.65.06", PyTorch("3.0.0", "14.1"), None),
        ("580.65.06", None, None),
    ],
)
def test_a_driver_must_know_the_cuda_that_pytorch_was_built_for(
    version: str, pytorch: PyTorch | None, complaint: str | None
) -> None:
    finding = judge([Card("NVIDIA L4", "23034 MiB", version)], pytorch)

    if complaint is None:
        assert finding is None
    else:
        assert finding
        assert not finding.fine
        assert f"NVIDIA L4, 23034 MiB, driver {version}" in finding.text
        assert complaint in (finding.remedy or "")


def test_a_gpu_is_told_by_its_name_and_its_driver(driver: Driver) -> None:
    driver('echo "NVIDIA L4, 23034 MiB, 580.65.06"; echo "NVIDIA A10, 23028 MiB, 580.65.06"')

    finding = examine_gpu(needed=True, pytorch=lambda: TODAY)

    assert finding.fine
    assert finding.text == (
        "NVIDIA L4, 23034 MiB, driver 580.65.06; NVIDIA A10, 23028 MiB, driver 580.65.06"
    )


def test_of_two_gpus_the_one_with_the_old_driver_is_named(driver: Driver) -> None:
    driver('echo "NVIDIA L4, 23034 MiB, 580.65.06"; echo "NVIDIA A10, 23028 MiB, 570.1"')

    finding = examine_gpu(needed=True, pytorch=lambda: TODAY)

    assert not finding.fine
    assert finding.text.startswith("NVIDIA A10")


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo No devices were found; exit 6", "No devices were found (exit code 6)"),
        ("echo Failed to initialize NVML >&2; exit 18", "Failed to initialize NVML"),
        ("exit 0", "not a word"),
        ("echo nonsense", "does not answer"),
    ],
)
def test_a_driver_that_does_not_answer_is_no_gpu(driver: Driver, script: str, text: str) -> None:
    driver(script)

    needed = examine_gpu(needed=True, pytorch=lambda: TODAY)
    idle = examine_gpu(needed=False, pytorch=lambda: TODAY)

    assert (needed.fine, idle.fine) == (False, True)
    assert text in needed.text
    assert "nvidia-smi" in (needed.remedy or "")
    assert idle.remedy is None


@pytest.mark.usefixtures("driver")
def test_a_missing_gpu_matters_only_to_those_who_need_one() -> None:
    needed = examine_gpu(needed=True, pytorch=lambda: TODAY)
    idle = examine_gpu(needed=False, pytorch=lambda: TODAY)

    assert not needed.fine
    assert "--gpus all" in (needed.remedy or "")
    assert idle.fine
