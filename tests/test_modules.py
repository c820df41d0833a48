"""What must hold for every module there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("handler", "inference", "adapters", "bench")
SCRIPTS = (*ROOT.glob("build/*.py"), *ROOT.glob("assets/*.py"))

#: Imports what it is told to, and complains of what that has set going.
IMPORT = """
import importlib, signal, sys, threading

def going():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return handlers, threading.active_count()

for name in sys.argv[1:]:
    before = going()
    importlib.import_module(name)
    assert going() == before, name
"""


def modules() -> list[str]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found)
    return sorted({*(name.removesuffix(".__init__") for name in names), "modal_app"})


def test_lesson_22_every_module_can_be_imported_and_sets_nothing_going() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, *modules()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_lesson_22_every_script_compiles(script: Path) -> None:
    code = compile(script.read_text(), script, "exec")

    assert code.co_filename == f"{script}"
