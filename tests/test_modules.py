"""What must hold for every module there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("handler", "inference", "adapters", "bench")
SCRIPTS = (*ROOT.glob("build/*.py"), *ROOT.glob("assets/*.py"))

#: Imports what it is told to, or runs it as an import would, and complains of what that set going.
IMPORT = """
import importlib, pathlib, runpy, signal, sys, threading

def going():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return handlers, threading.active_count()

for name in sys.argv[1:]:
    before = going()
    if name.endswith(".py"):
        sys.path.insert(0, str(pathlib.Path(name).parent))
        runpy.run_path(name)
        del sys.path[0]
    else:
        importlib.import_module(name)
    assert going() == before, name
"""


def modules() -> list[str]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found)
    return sorted({*(name.removesuffix(".__init__") for name in names), "modal_app"})


def test_lesson_22_every_module_and_script_can_be_imported_and_sets_nothing_going() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, *modules(), *map(str, SCRIPTS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
