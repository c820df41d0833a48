"""Make a slim weights directory: python build/convert_weights.py SOURCE TARGET."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from inference.musetalk.conversion import convert_weights
from inference.weights import WeightsError


def main() -> None:
    """Convert what the two arguments name."""
    parser = argparse.ArgumentParser(description="Make a slim weights directory.")
    parser.add_argument("source", type=Path, help="What `musetalk-worker weights fetch` brought.")
    parser.add_argument("target", type=Path, help="Where the converted files go.")
    words = parser.parse_args()
    try:
        convert_weights(words.source, words.target, print)
    except WeightsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
