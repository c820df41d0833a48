"""Make small real media files whose frames and moments can be told apart after decoding.

Each picture carries its number as twelve light or dark blocks, so that a test can say which frame
it was shown; it survives compression, scaling and odd sizes, and reads differently when turned or
mirrored. Each sound is an even hum, or silence, with a click in it, so that a test can say when it
was heard.
"""

from __future__ import annotations

import shlex
import struct
import subprocess
import wave
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import numpy as np
from numpy.typing import NDArray

from handler.job import Job
from inference.frame import Frame
from inference.media.framing import frame_picture
from inference.media.limits import Limits
from inference.media.probe import FfprobeGate
from inference.media.read import FrameReader

P = ParamSpec("P")
Planes444 = NDArray[np.uint8]

#: Rows and columns of the blocks that spell a number, and how many numbers they can spell.
ROWS, COLUMNS = 3, 4
NUMBERS = 2 ** (ROWS * COLUMNS)
#: Luma of a block that is not set, and of one that is.
DARK, LIGHT = 60, 190
#: What a camera does to an upright picture before it stores it, by EXIF's orientation.
STORED: dict[int, Callable[[Planes444], Planes444]] = {
    1: lambda planes: planes,
    2: lambda planes: planes[:, :, ::-1],
    3: lambda planes: planes[:, ::-1, ::-1],
    4: lambda planes: planes[:, ::-1, :],
    5: lambda planes: planes.transpose(0, 2, 1),
    6: lambda planes: np.rot90(planes, 1, (1, 2)),
    7: lambda planes: np.rot90(planes, 2, (1, 2)).transpose(0, 2, 1),
    8: lambda planes: np.rot90(planes, -1, (1, 2)),
}
#: The display matrix (a, b, c, d) that undoes it.
MATRIX = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
X264 = "-c:v libx264 -preset ultrafast -crf 20"
VP8 = "-c:v libvpx -deadline realtime -cpu-used 8"
VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"
HEVC = "-c:v libx265 -preset ultrafast -x265-params log-level=none"

#: One of each kind of film that is accepted: name, words for ffmpeg, and the codec in it.
FILMS = (
    ("film.mp4", "-flags +ilme+ildct -x264-params tff=1", "h264"),
    ("film.mov", "-g 10 -bf 2", "h264"),
    ("film.mkv", "-g 10 -bf 2", "h264"),
    ("film.mp4", "-movflags +frag_keyframe+empty_moov -g 10 -bf 2", "h264"),
    ("film.mp4", f"{HEVC} -tag:v hvc1", "hevc"),
    ("film.webm", VP8, "vp8"),
    ("film.webm", VP9, "vp9"),
    ("film.mp4", "-c:v mpeg4 -bf 2 -q:v 2", "mpeg4"),
)
#: Rates that cameras have, each in a container that writes it exactly, and in one that rounds it.
RATES = tuple(
    (name, rate)
    for name, rates in {
        "film.mp4": ("24000/1001", "25", "30000/1001", "60"),
        "film.mkv": ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60"),
    }.items()
    for rate in rates
)

CLICK_SECONDS = 0.01
#: One of each kind of sound that is accepted: name, rate, words for ffmpeg, and the codec in it.
VOICES = (
    ("voice.wav", 8_000, "", "pcm_s16le"),
    ("voice.wav", 44_100, "-c:a pcm_s24le", "pcm_s24le"),
    ("voice.wav", 96_000, "-c:a pcm_f32le", "pcm_f32le"),
    ("voice.wav", 22_050, "-c:a pcm_u8", "pcm_u8"),
    ("voice.mp3", 44_100, "-b:a 64k", "mp3"),
    ("voice.mp3", 22_050, "-q:a 6", "mp3"),
    ("voice.m4a", 48_000, "-c:a aac", "aac"),
    ("voice.m4a", 44_100, "-c:a alac", "alac"),
    ("voice.flac", 44_100, "", "flac"),
    ("voice.ogg", 48_000, "-c:a libvorbis", "vorbis"),
    ("voice.ogg", 48_000, "-c:a libopus", "opus"),
    ("voice.webm", 48_000, "-c:a libopus", "opus"),
)


def picture(number: int, width: int = 64, height: int = 48) -> Planes444:
    """Draw a number: [3, height, width], planar YUV 4:4:4 of limited range."""
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    bits = number >> (rows[:, None] * COLUMNS + columns) & 1
    luma = np.where(bits, LIGHT, DARK)
    blue = np.broadcast_to(np.linspace(100, 156, width), (height, width))
    red = np.broadcast_to(np.linspace(100, 156, height)[:, None], (height, width))
    return np.stack([luma, blue, red]).astype(np.uint8)


def frame(number: int, width: int = 64, height: int = 48) -> Frame:
    """Draw a number as a decoder would hand it over."""
    luma, blue, red = picture(number, width, height)
    planes = (luma, blue[::2, ::2], red[::2, ::2])
    return Frame(np.concatenate([plane.ravel() for plane in planes]), width, height)


def number_of(shown: Frame) -> int:
    """Read the number back from the middle of each block."""
    number = 0
    for place in range(ROWS * COLUMNS):
        row, column = divmod(place, COLUMNS)
        down = int((row + 0.5) * shown.height / ROWS)
        across = int((column + 0.5) * shown.width / COLUMNS)
        block = shown.planes.y[down - 2 : down + 2, across - 2 : across + 2]
        number |= int(block.mean() > (DARK + LIGHT) / 2) << place
    return number


def numbers_of(shown: Iterable[Frame]) -> list[int]:
    """Read the numbers of many frames."""
    return [number_of(each) for each in shown]


def reader(
    path: Path, fps: Fraction | None = None, *, limits: Limits | None = None, **wishes: object
) -> FrameReader:
    """Open a film as the engine does; ``wishes`` are fields of the job."""
    limits = limits or Limits()
    video = FfprobeGate(limits).face(path)
    return FrameReader(
        path=path,
        video=video,
        framing=frame_picture(video, job(**wishes)),
        fps=fps or video.fps or Fraction(25),
        limits=limits,
    )


def job(**wishes: object) -> Job:
    """Return a job that wishes nothing but what is named."""
    urls = {"video_url": "https://example.com/face", "audio_url": "https://example.com/voice"}
    return Job.parse(urls | wishes)


def _once(make: Callable[P, Path]) -> Callable[P, Path]:
    """Make each kind of file once; who asks for the same again gets a copy."""
    made: dict[str, bytes] = {}

    @wraps(make)
    def lend(*how: P.args, **options: P.kwargs) -> Path:
        target = Path(how[0])
        kind = repr((target.suffix, how[1:], options))
        if kind not in made:
            made[kind] = make(*how, **options).read_bytes()
        target.write_bytes(made[kind])
        return target

    return lend


@_once
def film(
    target: Path,
    frames: int | Sequence[int] = 24,
    fps: str = "25",
    size: tuple[int, int] = (64, 48),
    *,
    times_ms: Sequence[int] | None = None,
    orientation: int = 1,
    output: str = "",
    voice: Path | None = None,
) -> Path:
    """Film numbered pictures; ``size`` is that of the upright picture.

    ``times_ms`` gives each frame a time of its own; from 7.1 on, ffmpeg shows the last one for no
    time at all. ``output`` is more words for ffmpeg, of which a
    later ``-c:v`` wins over libx264. ``orientation`` is EXIF's; other than 1 it needs MP4.
    """
    numbers = range(frames) if isinstance(frames, int) else frames
    stored = [STORED[orientation](picture(number, *size)) for number in numbers]
    height, width = stored[0].shape[1:]
    run_ffmpeg(
        *f"-f rawvideo -pix_fmt yuv444p -video_size {width}x{height} -framerate {fps}".split(),
        *("-i", "pipe:0"),
        *(() if voice is None else ("-i", f"{voice}")),
        *(() if times_ms is None else _timing(times_ms)),
        *shlex.split(f"-pix_fmt yuv420p {X264} {output}"),
        f"{target}",
        stdin=b"".join(planes.tobytes() for planes in stored),
    )
    if orientation != 1:
        turn(target, orientation)
    return target


def _timing(times_ms: Sequence[int]) -> list[str]:
    stamps = f"settb=1/1000,setpts='{_chosen(times_ms)}'"
    return ["-vf", stamps, "-fps_mode", "passthrough", "-enc_time_base", "1/1000"]


def _chosen(values: Sequence[int], first: int = 0) -> str:
    """Return an expression that picks the Nth value; nested, as ffmpeg refuses long sums."""
    if len(values) == 1:
        return f"{values[0]}"
    half = len(values) // 2
    left, right = _chosen(values[:half], first), _chosen(values[half:], first + half)
    return f"if(lt(N,{first + half}),{left},{right})"


@_once
def still(
    target: Path,
    number: int = 1,
    size: tuple[int, int] = (64, 48),
    *,
    orientation: int | None = None,
    output: str = "",
) -> Path:
    """Save one numbered picture in the format that the name asks for; EXIF goes into JPEG only."""
    planes = STORED[orientation or 1](picture(number, *size))
    height, width = planes.shape[1:]
    run_ffmpeg(
        *f"-f rawvideo -pix_fmt yuv444p -video_size {width}x{height} -i pipe:0".split(),
        *("-frames:v", "1", "-update", "1", *shlex.split(output), f"{target}"),
        stdin=planes.tobytes(),
    )
    if orientation is not None:
        content = target.read_bytes()
        target.write_bytes(content[:2] + _exif(orientation) + content[2:])
    return target


@_once
def sound(
    target: Path,
    seconds: float = 1.0,
    rate_hz: int = 16_000,
    channels: int = 1,
    *,
    loudness: float = 0.0,
    click_at: float | None = None,
    output: str = "",
) -> Path:
    """Record a hum of 220 Hz, silence unless it has some loudness, and in it a click of 10 ms."""
    moments = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = loudness * np.sin(2 * np.pi * 220 * moments)
    if click_at is not None:
        clicking = (moments >= click_at) & (moments < click_at + CLICK_SECONDS)
        tone[clicking] = 0.9 * np.sign(np.sin(2 * np.pi * 1000 * moments[clicking] + 0.1))
    samples = np.repeat(tone[:, None], channels, axis=1).astype("<f4")
    if target.suffix == ".wav" and not output:
        return _wav(target, samples, rate_hz)
    run_ffmpeg(
        *f"-f f32le -ar {rate_hz} -ac {channels} -i pipe:0".split(),
        *(*shlex.split(output), f"{target}"),
        stdin=samples.tobytes(),
    )
    return target


def _wav(target: Path, samples: NDArray[np.float32], rate_hz: int) -> Path:
    """Write the commonest kind of file without ffmpeg, which takes longer to start than to work."""
    with wave.open(f"{target}", "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return target


def click_seconds(samples: NDArray[np.float32], rate_hz: int) -> float | None:
    """Return when the click is heard first, or None."""
    loud = np.flatnonzero(np.abs(samples) > 0.4)
    return float(loud[0] / rate_hz) if len(loud) else None


def run_ffmpeg(*words: str, stdin: bytes = b"") -> bytes:
    """Run ffmpeg on material of our own and return its output."""
    command = ["ffmpeg", "-hide_banner", "-v", "error", "-y", *words]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)[:1000]}\n{done.stderr.decode()[-1000:]}")
    return done.stdout


def turn(target: Path, orientation: int) -> None:
    """Write a display matrix into the tracks of an MP4 file, as a phone does."""
    a, b, c, d = (value << 16 for value in MATRIX[orientation])
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    content = bytearray(target.read_bytes())
    at = content.find(b"tkhd")
    while at >= 0:
        content[at + 44 : at + 80] = matrix
        at = content.find(b"tkhd", at + 4)
    target.write_bytes(content)


def forget_frame_rate(target: Path) -> Path:
    """Take the frame rate out of a WebM file's header, as browsers leave it out."""
    content = bytearray(target.read_bytes())
    at = content.find(b"\x23\xe3\x83")
    if at < 0:
        # Newer versions of ffmpeg leave it out themselves where times are uneven.
        return target
    length = 4 + (content[at + 3] & 0x7F)
    # An element that means nothing, of the same length.
    content[at : at + length] = bytes([0xEC, 0x80 | length - 2]) + bytes(length - 2)
    target.write_bytes(content)
    return target


def _exif(orientation: int) -> bytes:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"MM\x00*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    body = b"Exif\x00\x00" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
