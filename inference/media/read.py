"""Read a stranger's video as frames, in the order in which they are to be shown.

Frames lie on a grid of constant rate, whatever the timestamps: frame k is what a viewer sees at
k / fps seconds. No more than one chunk of them is held at a time; to play a clip
backwards it is decoded again, chunk by chunk from its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np

from handler.errors import MediaUnreadable, Stage
from handler.ports import VideoInfo
from inference.frame import Frame
from inference.matrix import Matrix
from inference.media.child import Child, ChildFailed, reading
from inference.media.framing import Framing, picture_filters
from inference.media.limits import Limits, input_options, threads

#: Held at once when a clip is played backwards, and the longest clip that is kept whole: so many
#: bytes, or so many frames where these are large. Each chunk costs decoding from the key frame
#: before it, so smaller ones are slower.
CHUNK_BYTES = 16 * 1024**2
CHUNK_FRAMES = 16
#: How far before a chunk decoding starts: longer than pictures are reordered over, which H.264
#: (ITU-T H.264, A.3.1) allows for 16 of them.
RUN_UP_SECONDS = 1.0
RUN_UP_FRAMES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameReader:
    """Decode one source into output-sized frames."""

    path: Path
    video: VideoInfo
    framing: Framing
    fps: Fraction
    limits: Limits
    #: What the numbers of the frames mean as colours.
    matrix: Matrix = Matrix.BT601

    def forward(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield frames ``start`` to ``stop`` (or the end), each in a buffer of its own.

        Raises :class:`MediaUnreadable` if the source cannot be decoded.
        """
        try:
            with reading(self._command(start, stop)) as child:
                while (frame := self._next_frame(child)) is not None:
                    yield frame
                child.finish(self.limits.stall_seconds)
        except ChildFailed as error:
            raise _unreadable("The video cannot be decoded.", reason=str(error)) from error

    def play(self, passes: Iterable[Sequence[int]], frames: int) -> Iterator[tuple[int, Frame]]:
        """Yield (index, frame) along passes over a source that has ``frames`` frames.

        A pass rises, with gaps or repeats, or falls by one. A source that fits into one chunk is
        decoded once.
        """
        if frames <= self._chunk_frames:
            kept = self._exactly(0, frames)
            yield from ((index, kept[index]) for indices in passes for index in indices)
            return
        for indices in passes:
            rising = indices[0] <= indices[-1]
            yield from self._rise(indices) if rising else self._fall(indices)

    def _rise(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        wanted = iter(indices)
        index = next(wanted, None)
        for at, frame in enumerate(self.forward(indices[0], indices[-1] + 1), indices[0]):
            while index == at:
                yield index, frame
                index = next(wanted, None)
        if index is not None:
            raise _unreadable(f"The video ended before its frame {index}.")

    def _fall(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        end, last = indices[0] + 1, indices[-1]
        while end > last:
            start = max(last, end - self._chunk_frames)
            chunk = self._exactly(start, end)
            while chunk:
                # Taken out of the chunk, so that its memory goes as it is shown.
                yield start + len(chunk) - 1, chunk.pop()
            end = start

    def _exactly(self, start: int, stop: int) -> list[Frame]:
        frames = list(self.forward(start, stop))
        if len(frames) < stop - start:
            raise _unreadable(f"The video ended before its frame {stop}.")
        return frames

    @property
    def _chunk_frames(self) -> int:
        frame_bytes = Frame.size_bytes(self.framing.width, self.framing.height)
        return max(CHUNK_FRAMES, CHUNK_BYTES // frame_bytes)

    def _next_frame(self, child: Child) -> Frame | None:
        width, height = self.framing.canvas
        buffer = np.empty(Frame.size_bytes(width, height), np.uint8)
        read = child.read_into(buffer, self.limits.stall_seconds)
        return Frame(buffer, width, height, self.matrix) if read == len(buffer) else None

    def _command(self, start: int, stop: int | None) -> list[str]:
        options: dict[str, Any] = input_options(self.path, self.limits)
        # Upright by our own filters: versions of ffmpeg differ in what they turn.
        options |= {"noautorotate": None, "threads": threads()}
        # A film that changes its size goes on through the same filters: new ones would begin anew.
        options |= {"reinit_filter": 0}
        if start:
            # From a key frame well before, and not cut to the time: what is shown at `start` may
            # have come earlier, and what follows a key frame may lean on what came before it.
            run_up = max(RUN_UP_SECONDS, RUN_UP_FRAMES / float(self.video.fps or self.fps))
            from_seconds = self.video.start_time + float(start / self.fps) - run_up
            options |= {"ss": from_seconds, "seek_timestamp": 1, "noaccurate_seek": None}
        picture = ffmpeg.input(f"file:{self.path.absolute()}", **options)["V:0"]
        if self.video.fps is not None:
            # Every chunk counts from the same zero, so that all lie on one grid. What is missing
            # before the chunk is filled with references to its first picture, and cut off.
            zero = self.video.start_time
            picture = picture.filter("fps", _text(self.fps), start_time=zero)
        if start:
            picture = picture.filter("trim", start_frame=start)
        picture = picture_filters(picture, self.video, self.framing)
        stop = 1 if self.video.fps is None else stop
        bounds = {} if stop is None else {"frames:v": stop - start}
        output = ffmpeg.output(
            picture,
            "pipe:1",
            format="rawvideo",
            pix_fmt="yuv420p",
            fps_mode="passthrough",
            **bounds,
        )
        return list(output.global_args("-nostdin", "-v", "error", "-copyts").compile())


def _unreadable(message: str, **details: str) -> MediaUnreadable:
    # Whenever it shows, it was so from the start.
    return MediaUnreadable(message, stage=Stage.VALIDATION, **details)


def _text(rate: Fraction) -> str:
    return f"{rate.numerator}/{rate.denominator}"
