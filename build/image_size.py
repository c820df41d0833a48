"""Estimate the image's size by layer: python build/image_size.py [--measure SITE_PACKAGES].

No container engine is needed. What is to pull is the sum of Debian's packages and of the wheels in
image.lock; what these take on a disk was measured once for this lock, and is on record beside it in
image_size.json. --measure renews the record from an environment that was installed from the lock.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LOCK, RECORD = HERE / "image.lock", HERE / "image_size.json"
MB = 1_000_000
#: The base image: Debian 13's essential packages and those that Python is linked with (130 MB, 36
#: to pull, by their own declarations), and Python itself; what is left out of them is not deducted.
BASE_BYTES, BASE_PULLED_BYTES = 170 * MB, 50 * MB
#: ffmpeg's 196 further packages, as Debian declares them, without the renderer that is purged.
FFMPEG_BYTES, FFMPEG_PULLED_BYTES = 264 * MB, 89 * MB
#: What build/convert_weights.py makes of the published files; parameters hardly compress.
WEIGHTS_BYTES = 2_100 * MB
#: The worker's own code, compiled as well.
CODE_DIRECTORIES = ("handler", "inference", "adapters")
CODE_FACTOR = 2.5
MOST_BYTES = {"without weights": 6_500 * MB, "with weights": 9_000 * MB}


@dataclass(frozen=True, slots=True)
class Layer:
    """Hold what a layer takes on a disk, and what is pulled of it."""

    name: str
    disk_bytes: int
    pulled_bytes: int


class Outdated(Exception):
    """The record tells of another lock."""


def main(words: Sequence[str] | None = None) -> None:
    """Print the table; exit 1 if the image would be too large, or the record is out of date."""
    parser = argparse.ArgumentParser(description="Estimate the image's size by layer.")
    parser.add_argument("--measure", type=Path, metavar="SITE_PACKAGES")
    told = parser.parse_args(words)
    if told.measure:
        record = {"lock_sha256": checksum(LOCK), "packages_bytes": size_of(told.measure)}
        RECORD.write_text(f"{json.dumps(record, indent=2)}\n", encoding="utf-8")
    try:
        layers = tuple(image_layers())
    except Outdated as error:
        sys.exit(str(error))
    for line in table(layers):
        print(line)
    sys.exit(bool(excesses(layers)))


def image_layers() -> Iterator[Layer]:
    """Yield the layers in their order; raise :class:`Outdated` if the lock has changed since."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    if record["lock_sha256"] != checksum(LOCK):
        raise Outdated(
            f"{RECORD.name} is of another {LOCK.name}: install that into a fresh environment and"
            " run build/image_size.py --measure on its site-packages."
        )
    code = sum(size_of(HERE.parent / name, "*.py") for name in CODE_DIRECTORIES)
    yield Layer("system: Debian 13, Python", BASE_BYTES, BASE_PULLED_BYTES)
    yield Layer("system: ffmpeg", FFMPEG_BYTES, FFMPEG_PULLED_BYTES)
    yield Layer("python", record["packages_bytes"], wheels_bytes(LOCK))
    yield Layer("weights", WEIGHTS_BYTES, WEIGHTS_BYTES)
    yield Layer("code", round(CODE_FACTOR * code), code)


def excesses(layers: Sequence[Layer]) -> Sequence[str]:
    """Return which of the image's variants would be larger than promised."""
    return [name for name, disk, _ in totals(layers) if disk > MOST_BYTES[name]]


def totals(layers: Sequence[Layer]) -> Iterator[tuple[str, int, int]]:
    """Yield both variants, each with what it takes on a disk and what is pulled of it."""
    bare = [layer for layer in layers if layer.name != "weights"]
    for name, held in zip(MOST_BYTES, (bare, layers), strict=True):
        disk, pulled = (sum(layer.disk_bytes for layer in held), sum(x.pulled_bytes for x in held))
        yield name, disk, pulled


def table(layers: Sequence[Layer]) -> Iterator[str]:
    """Yield the lines of the table, in MB."""
    yield f"{'layer':<26} {'on disk':>8} {'to pull':>8} {'at most':>8}"
    for layer in layers:
        yield f"{layer.name:<26} {layer.disk_bytes // MB:>8} {layer.pulled_bytes // MB:>8}"
    for name, disk, pulled in totals(layers):
        yield f"{name:<26} {disk // MB:>8} {pulled // MB:>8} {MOST_BYTES[name] // MB:>8}"


def wheels_bytes(lock: Path) -> int:
    """Return how large the wheels of a lock file are together."""
    return sum(map(int, re.findall(r"# (\d+) bytes$", lock.read_text("utf-8"), re.MULTILINE)))


def size_of(directory: Path, pattern: str = "*") -> int:
    """Return how large the files in a directory are together."""
    return sum(path.stat().st_size for path in directory.rglob(pattern) if path.is_file())


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
