"""Bring the weights, each file at its pinned commit: python build/fetch_weights.py DIRECTORY."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from inference.weights import WEIGHTS, WeightsError, WeightsFile, verify_weights
from inference.weights.fetch import fetch_weights


def main(
    words: Sequence[str] | None = None,
    listing: Sequence[WeightsFile] = WEIGHTS,
    endpoint: str | None = None,
) -> None:
    """Fetch what the directory lacks or has wrong, then read every file again.

    HF_ENDPOINT and HF_TOKEN are huggingface_hub's own. Ends in :class:`SystemExit`, with what to
    do, if a file is not what it should be; nothing of such a file stays.
    """
    parser = argparse.ArgumentParser(description="Bring the weights at their pinned commits.")
    parser.add_argument("directory", type=Path, help="Where they go; made if need be.")
    directory = parser.parse_args(words).directory
    try:
        fetched = fetch_weights(directory, lambda *_: None, listing, endpoint)
        findings = verify_weights(directory, listing)
    except WeightsError as error:
        sys.exit(str(error))
    for finding in findings:
        whence = "fetched" if finding.file in fetched else "was there"
        print(f"{finding.path}: {finding.verdict}, {whence}, {finding.file.revision}")
    if faults := [finding.path for finding in findings if not finding.usable]:
        sys.exit(f"{directory} does not keep what is written to it: {', '.join(faults)}.")
    for repository, licence in {file.repository: file.licence for file in listing}.items():
        print(f"  {repository}: {licence}")


if __name__ == "__main__":
    main()
