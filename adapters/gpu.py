"""Whether there is a GPU, and a driver that is new enough for the PyTorch that is to use it."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from adapters.diagnosis import Finding

SUBJECT = "gpu"
#: A healthy driver answers at once; a hung one never.
PATIENCE_SECONDS = 10
QUESTION = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
#: The oldest driver branch for each major version of CUDA (NVIDIA, CUDA Compatibility, Table 1).
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}


@dataclass(frozen=True, slots=True)
class PyTorch:
    """Say which PyTorch is installed, and which CUDA it was built for; None for none."""

    version: str
    cuda: str | None

    @classmethod
    def installed(cls) -> Self | None:
        """Read what PyTorch's build has left beside it; importing it takes a second.

        None if it is missing, or does not say.
        """
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.origin is None:
            return None
        with suppress(OSError, ImportError, KeyError):
            told = runpy.run_path(f"{Path(spec.origin).with_name('version.py')}")
            return cls(told["__version__"], told["cuda"])
        return None


@dataclass(frozen=True, slots=True)
class Card:
    """Say what the driver tells of a GPU."""

    name: str
    memory: str
    driver: str

    @classmethod
    def read(cls, line: str) -> Self:
        """Read a line of the driver's tool; raise :class:`ValueError` if it is none."""
        name, memory, driver = (part.strip() for part in line.rsplit(",", 2))
        return cls(name, memory, driver)

    def __str__(self) -> str:
        return f"{self.name}, {self.memory}, driver {self.driver}"


def examine_gpu(
    *, needed: bool, pytorch: Callable[[], PyTorch | None] = PyTorch.installed
) -> Finding:
    """Return how the GPU stands; one that is not ``needed`` is fine however it does.

    The driver's own tool answers without PyTorch, and in time. ``pytorch`` says which one is there.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        if not needed:
            return Finding(SUBJECT, fine=True, text="none, and none is needed")
        remedy = "give the container a GPU (docker run --gpus all), or set DEVICE=cpu for a trial"
        text = "none: no NVIDIA driver found; jobs would take minutes on the CPU"
        return Finding(SUBJECT, fine=False, text=text, remedy=remedy)
    try:
        cards = _ask(tool)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        text = f"the driver does not answer: {error}"
        remedy = "run nvidia-smi to see why; restart the machine, or take another"
        return Finding(SUBJECT, not needed, text, remedy if needed else None)
    fine = Finding(SUBJECT, fine=True, text="; ".join(map(str, cards)))
    return (needed and judge(cards, pytorch())) or fine


def judge(cards: Sequence[Card], torch: PyTorch | None) -> Finding | None:
    """Return what keeps PyTorch from these GPUs; None if nothing does, or it is not known."""
    if torch is None:
        # That it is missing, the engine says.
        return None
    if torch.cuda is None:
        text = f"PyTorch {torch.version} is built without CUDA"
        remedy = "install a PyTorch for CUDA, or set DEVICE=cpu for a trial"
        return Finding(SUBJECT, fine=False, text=f"{cards[0]}: {text}", remedy=remedy)
    oldest = OLDEST_DRIVER.get(_leading_number(torch.cuda), 0)
    old = [card for card in cards if _leading_number(card.driver) < oldest]
    if not old:
        return None
    text = f"{old[0]}: too old for CUDA {torch.cuda}, which PyTorch {torch.version} is built for"
    remedy = f"update the driver to {oldest} or later, or take a machine that has it"
    return Finding(SUBJECT, fine=False, text=text, remedy=remedy)


def _ask(tool: str) -> Sequence[Card]:
    """Return the cards; raise what shows that there is no answer."""
    done = subprocess.run(
        [tool, *QUESTION], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    if done.returncode or not done.stdout.strip():
        words = " ".join((done.stdout + done.stderr).split())
        raise ValueError(f"{words or 'not a word'} (exit code {done.returncode})")
    return [Card.read(line) for line in done.stdout.splitlines()]


def _leading_number(version: str) -> int:
    """Return the number that a version begins with; 0 if there is none."""
    found = re.match(r"\d+", version)
    return int(found.group()) if found else 0
