"""Watch and listen to finished videos the way a sceptical viewer would: with ffmpeg and a ruler."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
#: A change of luma that an encoder at crf 18 does not make by itself.
VISIBLE_LEVELS = 32


def describe(path: Path) -> dict[str, Any]:
    """Return what ffprobe says of a file: its streams by kind, and its format."""
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_format", str(path)]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {stream["codec_type"]: stream for stream in answer["streams"]} | answer


def pictures(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield each picture's luma as stored in the file: [height, width]."""
    video = describe(path)["video"]
    width, height = video["width"], video["height"]
    command = ["ffmpeg", "-v", "error", "-noautorotate", "-i", str(path), "-map", "0:v"]
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-fps_mode", "passthrough", "-"]
    size = width * height + 2 * (-(-width // 2) * -(-height // 2))
    with subprocess.Popen([*command, *raw], stdout=subprocess.PIPE) as decoder:
        assert decoder.stdout is not None
        while len(frame := decoder.stdout.read(size)) == size:
            yield np.frombuffer(frame, np.uint8)[: width * height].reshape(height, width)


def loudness(path: Path, fps: Fraction, frames: int) -> NDArray[np.float64]:
    """Return the RMS of a file's sound under each frame: [frames]."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a", "-f", "f32le"]
    raw = subprocess.run(
        [*command, "-ac", "1", "-ar", str(RATE_HZ), "-"], capture_output=True, check=True
    ).stdout
    samples = np.frombuffer(raw, np.float32)
    edges = [round(frame * RATE_HZ / fps) for frame in range(frames + 1)]
    parts = [samples[start:end] for start, end in pairwise(edges)]
    return np.array([np.sqrt(np.mean(part**2)) if len(part) else 0.0 for part in parts])


def forth_and_back(source: int, total: int) -> list[int]:
    """Return which of ``source`` frames shows when, both ends twice."""
    there = list(range(source))
    turn = there + there[::-1]
    return list(islice((turn[frame % len(turn)] for frame in range(total)), total))


def changes(source: Path, output: Path, shown: Sequence[int]) -> NDArray[np.float64]:
    """Return how many pixels of each output frame differ visibly from its source frame.

    Only the mouth moves, so this measures how far it is open.
    """
    originals = list(pictures(source))
    return np.array(
        [
            np.count_nonzero(np.abs(picture.astype(int) - originals[index]) > VISIBLE_LEVELS)
            for picture, index in zip(pictures(output), shown, strict=True)
        ],
        dtype=float,
    )


def best_lag(opening: NDArray[np.float64], voice: NDArray[np.float64], reach: int) -> int:
    """Return by how many frames the mouth follows the voice, within ``reach`` either way."""
    scores = {
        lag: np.corrcoef(
            opening[reach + lag : len(opening) - reach + lag], voice[reach : len(voice) - reach]
        )[0, 1]
        for lag in range(-reach, reach + 1)
    }
    return max(scores, key=lambda lag: scores[lag])
