"""Ask ffprobe what a stranger's file is, without letting it decode what is not accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np

from handler.errors import MediaTooLarge, MediaUnreadable, UnsupportedMedia, WorkerError
from inference.media.child import Child, ChildFailed, reading
from inference.media.length import check_whole
from inference.media.limits import (
    ACCEPTED,
    BYSTANDERS,
    MAX_STREAMS,
    PROBE_CPU_SECONDS,
    VIDEO_DECODERS,
    Limits,
    input_options,
    still_demuxer,
)

#: Longest answer that is read.
ANSWER_BYTES = 4 * 1024**2

#: What is asked of it. A stranger's titles and comments are not: they may be of any length.
_STREAM = (
    "codec_type", "codec_name", "width", "height", "pix_fmt", "sample_aspect_ratio", "r_frame_rate",
    "avg_frame_rate", "start_time", "duration", "nb_frames", "sample_rate", "channels",
    "color_range", "color_space", "color_transfer", "color_primaries",
)  # fmt: skip
_ENTRIES = (
    f"format=format_name,duration:stream={','.join(_STREAM)}"
    ":stream_disposition=attached_pic:stream_tags=DURATION:stream_side_data=displaymatrix"
)

#: What ffprobe says where it has no exit code for it: a whitelist or our limit stopped the file.
_REFUSED = re.compile(r"(?:Codec \((?P<codec>\w+)\)|Format) not on whitelist")
_TOO_LARGE = re.compile(r"exceeds specified max pixel count|Picture size \S+ is invalid")
#: What a decoder of JPEG says when the picture ends before its last line, and calls it a success.
_CUT_OFF = re.compile(r"overread")

Stream = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Description:
    """Hold ffprobe's answer on one file."""

    streams: Sequence[Stream]
    container: Mapping[str, Any]
    #: The first frame, for still images alone: there it says which way is up.
    frames: Sequence[Mapping[str, Any]]
    still: bool

    def first(self, kind: str) -> Stream | None:
        """Return the first stream of a kind; the cover of a song or film is no picture."""
        for stream in self.streams:
            cover = stream.get("disposition", {}).get("attached_pic")
            if stream.get("codec_type") == kind and not cover:
                return stream
        return None


def describe(path: Path, limits: Limits) -> Description:
    """Return the streams of a file.

    Raises :class:`UnsupportedMedia`, :class:`MediaTooLarge` or :class:`MediaUnreadable`.
    """
    still = still_demuxer(path) is not None
    wanted = ["-show_entries", _ENTRIES]
    if still:
        wanted = ["-show_entries", f"{_ENTRIES}:frame_side_data=displaymatrix"]
        wanted += ["-read_intervals", "%+#1"]
    else:
        check_whole(path)
    answer = _ask(path, wanted, limits)
    streams = answer.get("streams", [])
    if len(streams) > MAX_STREAMS:
        raise MediaUnreadable(f"The file has too many streams; at most {MAX_STREAMS} are accepted.")
    return Description(
        streams=streams,
        container=answer.get("format", {}),
        frames=answer.get("frames", []),
        still=still,
    )


def packet_times(path: Path, seconds: float, limits: Limits) -> list[float]:
    """Return when the pictures of a file's first seconds are shown, in seconds."""
    wanted = ["-select_streams", "V:0", "-read_intervals", f"%+{seconds:g}"]
    answer = _ask(path, [*wanted, "-show_entries", "packet=pts_time"], limits)
    times = (packet.get("pts_time") for packet in answer.get("packets", []))
    return sorted(float(time) for time in times if time is not None)


def _ask(path: Path, wanted: Sequence[str], limits: Limits) -> Any:
    argv = [*_command(path, limits), "-of", "json", *wanted]
    try:
        with reading(argv, cpu_seconds=PROBE_CPU_SECONDS) as child:
            said = _listen(child, limits)
            complaint = child.complaint()
        answer = json.loads(said)
    except (ChildFailed, ValueError) as error:
        raise _meaning(str(error), limits) from error
    if _TOO_LARGE.search(complaint) or _CUT_OFF.search(complaint):
        # Some decoders complain and end well.
        raise _meaning(complaint, limits)
    return answer


def _listen(child: Child, limits: Limits) -> bytes:
    buffer = np.empty(ANSWER_BYTES, np.uint8)
    size = child.read_into(buffer, limits.stall_seconds)
    if size == len(buffer):
        raise ChildFailed("the file says too much about itself")
    child.finish(limits.stall_seconds)
    return buffer[:size].tobytes()


def _command(path: Path, limits: Limits) -> list[str]:
    source = ffmpeg.input(f"file:{path.absolute()}", **input_options(path, limits))
    words = ffmpeg.output(source, "-").compile()
    # ffprobe takes ffmpeg's words for an input. It also opens a decoder for every stream, without
    # using it: a song's cover or a film's subtitles must not stop it. What is decoded to learn
    # more stays bound by the whitelist in front.
    bystanders = {
        "v": (*VIDEO_DECODERS, *BYSTANDERS["v"]),
        "a": BYSTANDERS["a"],
        "s": BYSTANDERS["s"],
    }
    opened = [
        word
        for kind, codecs in bystanders.items()
        for word in (f"-codec_whitelist:{kind}", ",".join(codecs))
    ]
    at = words.index("-i")
    return ["ffprobe", "-v", "error", *words[1:at], *opened, *words[at : at + 2]]


def _meaning(complaint: str, limits: Limits) -> WorkerError:
    if refused := _REFUSED.search(complaint):
        what = f"codec {refused['codec']}" if refused["codec"] else "file's format"
        return UnsupportedMedia(f"The {what} is not accepted. Accepted are {'; '.join(ACCEPTED)}.")
    if _TOO_LARGE.search(complaint):
        return MediaTooLarge(
            f"The picture has too many pixels; see MAX_PIXELS={limits.max_pixels}."
        )
    if _CUT_OFF.search(complaint):
        return MediaUnreadable("The picture is cut off: part of it is missing.")
    return MediaUnreadable(
        "The file is not of an accepted media format, or is damaged.", reason=complaint
    )
