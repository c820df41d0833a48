"""Read a stranger's sound as numbers."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from handler.errors import MediaTooLong, MediaUnreadable, Stage
from inference.media.child import ChildFailed, reading
from inference.media.limits import Limits, input_options

#: The rate that speech models listen at.
RATE_HZ = 16_000
#: Samples handed out at a time: one second.
CHUNK_SAMPLES = RATE_HZ
#: Full scale is 1, and recordings in floating point may exceed it; a thousandfold is no sound.
LOUDEST_SAMPLE = 1000.0


def voice_stream(path: Path, limits: Limits, *, rate_hz: int, layout: str) -> Any:
    """Return ffmpeg's stream for the first sound of a file, any gap in it filled with silence.

    Whoever hears it and whoever sees it must agree on when it starts, so both read it through here.
    Channels that become one are not louder together than each was alone.
    """
    source = ffmpeg.input(f"file:{path.absolute()}", **input_options(path, limits))
    words = {"async": 1, "first_pts": 0, "rematrix_maxval": 1.0}
    whole = source["a:0"].filter("aresample", **words)
    return whole.filter("aformat", sample_rates=rate_hz, channel_layouts=layout)


def read_samples(path: Path, limits: Limits) -> Generator[NDArray[np.float32], None, None]:
    """Yield the sound of a file in chunks of a second: [samples] at 16 kHz, mono, -1 to 1.

    Raises :class:`MediaUnreadable` if it cannot be decoded and :class:`MediaTooLong` if it goes on
    beyond the limit, whatever its header says.
    """
    voice = voice_stream(path, limits, rate_hz=RATE_HZ, layout="mono")
    output = ffmpeg.output(voice, "pipe:1", format="f32le")
    output = output.global_args("-nostdin", "-v", "error")
    buffer, heard = np.empty(CHUNK_SAMPLES, np.float32), 0
    try:
        with reading(output.compile()) as child:
            while count := child.read_into(buffer.view(np.uint8), limits.stall_seconds) // 4:
                heard += count
                if heard > limits.max_audio_seconds * RATE_HZ:
                    raise MediaTooLong(
                        f"The voice lasts longer than the {limits.max_audio_seconds:g} s accepted.",
                        stage=Stage.VALIDATION,
                    )
                if not np.abs(buffer[:count]).max() <= LOUDEST_SAMPLE:
                    raise _unreadable("The voice holds samples that are no sound.")
                yield buffer[:count].copy()
            child.finish(limits.stall_seconds)
    except ChildFailed as error:
        raise _unreadable("The voice cannot be decoded.", reason=str(error)) from error


def measure_seconds(path: Path, limits: Limits) -> float:
    """Return how long the sound of a file really lasts, by decoding it."""
    return sum(len(chunk) for chunk in read_samples(path, limits)) / RATE_HZ


def _unreadable(message: str, **details: str) -> MediaUnreadable:
    # Whenever it shows, it was so from the start.
    return MediaUnreadable(message, stage=Stage.VALIDATION, **details)
