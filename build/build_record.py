"""Write what an image was built of: python build/build_record.py RECORD --lock L --weights W.

The record is JSON, and stays in the image at /etc/musetalk/build.json:

``format``       1; grows when a field changes its meaning
``version``      the worker's, as in adapters/__init__.py or as told
``git_commit``   forty hex digits, or null if the builder was not told
``lock_sha256``  of image.lock, from which the Python packages were installed
``weights``      by path, each file's ``sha256``, ``size_bytes``, ``repository`` and ``revision``;
                 null if they are left to a volume

The image's own digest cannot be in it: that is given at run time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference.weights import WeightsError
from inference.weights.lock import read_lock

FORMAT = 1
COMMIT = re.compile(r"[0-9a-f]{40}")


def main(words: Sequence[str] | None = None) -> None:
    """Write the record, or end in :class:`SystemExit` with what is wrong and no record."""
    parser = argparse.ArgumentParser(description="Write what an image was built of.")
    parser.add_argument("record", type=Path)
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="May be empty.")
    parser.add_argument("--version", required=True)
    parser.add_argument("--git-commit", default="", help="Forty hex digits; none if not known.")
    told = parser.parse_args(words)
    if told.git_commit and not COMMIT.fullmatch(told.git_commit):
        sys.exit(f"GIT_COMMIT={told.git_commit} is no commit: give `git rev-parse HEAD`.")
    try:
        record = {
            "format": FORMAT,
            "version": told.version,
            "git_commit": told.git_commit or None,
            "lock_sha256": hashlib.sha256(told.lock.read_bytes()).hexdigest(),
            "weights": _weights(told.weights),
        }
        told.record.write_text(f"{json.dumps(record, indent=2)}\n", encoding="utf-8")
    except (WeightsError, OSError) as error:
        sys.exit(str(error))


def _weights(directory: Path) -> Mapping[str, Mapping[str, Any]] | None:
    """Return what the directory's own lock says of its files, which was written as they were."""
    told = ("sha256", "size_bytes", "repository", "revision")
    pins = read_lock(directory)
    return {path: {name: getattr(pins[path], name) for name in told} for path in pins} or None


if __name__ == "__main__":
    main()
