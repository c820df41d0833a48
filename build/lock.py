"""Renew the image's lock files from what is published now: python build/lock.py, or make lock.

A line a distribution: its version, the checksum of the one wheel that the image's Python takes, and
its size. uv resolves, as it can for another system than the one it runs on; pip installs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

HERE = Path(__file__).parent
#: The extras of pyproject.toml that the image is made for.
EXTRAS = ("musetalk", "runpod", "serve", "telemetry")
#: The image's interpreter, and the glibc that its wheels may ask for; Debian 13 has 2.41.
PYTHON = (3, 11)
GLIBC = (2, 40)
#: The oldest glibc that wheels are made for: manylinux1.
OLDEST_GLIBC = 5
#: Older names of some platforms (PEP 600), by the minor version of their glibc.
LEGACY = {17: ("manylinux2014",), 12: ("manylinux2010",), 5: ("manylinux1",)}
HEADER = "# Written by `make lock`, for Python 3.11 on x86-64 Linux, with the bytes to pull.\n"


def main() -> None:
    """Renew both lock files."""
    worker = ["../pyproject.toml", "image.in", "--override", "image.overrides"]
    worker += [word for extra in EXTRAS for word in ("--extra", extra)]
    for name, sources in {"image.lock": worker, "wheel.lock": ["wheel.in"]}.items():
        text = HEADER + "".join(f"{line}\n" for line in _lines(_resolved(sources)))
        (HERE / name).write_text(text, encoding="utf-8")
        print(f"{name}: {text.count('==')} distributions")


def _resolved(sources: Sequence[str]) -> Any:
    """Return what is to be installed, each with the wheels that there are for the image."""
    platform = f"x86_64-manylinux_{GLIBC[0]}_{GLIBC[1]}"
    target = ["--python-version", ".".join(map(str, PYTHON)), "--python-platform", platform]
    with tempfile.TemporaryDirectory() as place:
        found = Path(place) / "pylock.toml"
        words = [*target, "--only-binary", ":all:", "--no-config", "--quiet", "--output-file"]
        command = [sys.executable, "-m", "uv", "pip", "compile", *sources, *words, f"{found}"]
        subprocess.run(command, cwd=HERE, check=True)
        return tomllib.loads(found.read_text(encoding="utf-8"))["packages"]


def _lines(packages: Sequence[Any]) -> Iterator[str]:
    ranks = {tag: rank for rank, tag in enumerate(_tags())}
    for package in packages:
        wheel = min(package["wheels"], key=lambda each: _rank(each, ranks))
        checksum = f"--hash=sha256:{wheel['hashes']['sha256']}"
        yield f"{package['name']}=={package['version']} {checksum}  # {wheel['size']} bytes"


def _rank(wheel: Any, ranks: dict[Tag, int]) -> int:
    *_, tags = parse_wheel_filename(wheel["url"].rpartition("/")[2])
    return min(ranks.get(tag, len(ranks)) for tag in tags)


def _tags() -> Iterator[Tag]:
    """Yield the tags of wheels that the image takes, the best first, as pip does."""
    major, newest = GLIBC
    platforms = [
        f"{manylinux}_x86_64"
        for minor in range(newest, OLDEST_GLIBC - 1, -1)
        for manylinux in (f"manylinux_{major}_{minor}", *LEGACY.get(minor, ()))
    ]
    interpreter = f"cp{PYTHON[0]}{PYTHON[1]}"
    yield from cpython_tags(PYTHON, abis=[interpreter], platforms=platforms)
    yield from compatible_tags(PYTHON, interpreter, platforms)


if __name__ == "__main__":
    main()
