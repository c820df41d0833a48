"""The scripts in build/, as modules and as the processes that they are run as."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

Done = subprocess.CompletedProcess[str]


def script_of(name: str) -> Any:
    """Return a script as a module, without running it."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"build/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_script(name: str, *words: str, prefix: tuple[str, ...] = (), **env: str) -> Done:
    """Run a script in an environment that has nothing else; it must not end in a traceback."""
    done = subprocess.run(
        [*prefix, sys.executable, f"build/{name}.py", *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done
