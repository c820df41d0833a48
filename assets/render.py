"""Render the sample media of this folder: a portrait, a moving face and a voice.

Usage: python assets/render.py PATH_TO_astronaut.png
The portrait is skimage/data/astronaut.png of a scikit-image wheel. Needs ffmpeg and espeak-ng.
"""

import argparse
import hashlib
import math
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]
Samples = npt.NDArray[np.int16]

PORTRAIT_SHA256: Final = "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"
JPEG_QUALITY_PERCENT: Final = 92

FRAME_RATE_HZ: Final = 25
CLIP_FRAMES: Final = 100
X264_CRF: Final = 17

# The zoom leaves a margin of some 14 px that the camera's sway and roll never use up.
CAMERA_ZOOM: Final = 1.06
CAMERA_ZOOM_SWING: Final = 0.008
CAMERA_SWAY_PX: Final = (2.5, 1.5)
CAMERA_ROLL_DEG: Final = 0.25

HEAD_CENTRE_PX: Final = (226.0, 105.0)
HEAD_RADII_PX: Final = (75.0, 90.0)
NECK_PIVOT_PX: Final = (222.0, 192.0)
# In head radii: rigid up to the first, still from the second on, so nothing tears in between.
HEAD_FALLOFF_RADII: Final = (1.05, 1.7)
HEAD_ROLL_DEG: Final = 1.3
HEAD_NOD_PX: Final = 1.2
HEAD_TURN_PX: Final = (1.8, 1.2)

BLINK_STARTS_S: Final = (1.04, 2.76)
BLINK_CLOSE_S: Final = 0.12
BLINK_OPEN_S: Final = 0.20

# The portrait's sitter is a woman, so the voice is one of espeak-ng's female variants.
VOICE_NAME: Final = "en-us+f3"
VOICE_SPEED_WPM: Final = 160
VOICE_SENTENCES: Final = (
    "Hello! This sample has a synthetic voice.",
    "Watch the lips follow every word of it.",
)
VOICE_PAUSE_S: Final = 0.5
VOICE_MARGIN_S: Final = 0.2
VOICE_PEAK: Final = 0.7
VOICE_SILENCE: Final = 0.004
PCM_FULL_SCALE: Final = 32767
PCM_SAMPLE_BYTES: Final = 2


@dataclass(frozen=True)
class Eye:
    """Outline of one open eye: both lids are parabolas between its corners."""

    left_px: tuple[float, float]
    right_px: tuple[float, float]
    upper_rise_px: float
    lower_drop_px: float
    lash_px: float
    brow_gap_px: float


EYES: Final = (
    Eye((193.0, 101.5), (213.0, 103.0), 3.5, 2.4, 3.0, 4.0),
    Eye((237.0, 104.0), (257.0, 104.0), 3.1, 2.7, 3.0, 3.4),
)


def load_portrait(path: Path) -> Image:
    """Read the portrait and refuse any other picture."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != PORTRAIT_SHA256:
        # Head and eyes are given in pixels of this very picture.
        message = f"not scikit-image's astronaut.png: {path.name}"
        raise ValueError(message)
    return _decode(data)


def write_portrait(portrait: Image, path: Path) -> None:
    """Write the portrait as a JPEG file."""
    done, data = cv2.imencode(".jpg", portrait, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY_PERCENT])
    if not done:
        message = f"cannot encode {path.name}"
        raise OSError(message)
    path.write_bytes(data.tobytes())


def write_clip(portrait: Image, path: Path) -> None:
    """Write the moving face as an H.264 file."""
    height, width = portrait.shape[:2]
    frames = b"".join(frame.tobytes() for frame in render_frames(portrait))
    source = f"-f rawvideo -pix_fmt bgr24 -s {width}x{height} -r {FRAME_RATE_HZ} -i -"
    # One thread, because x264's choices depend on how many there are.
    codec = f"-c:v libx264 -preset veryslow -crf {X264_CRF} -threads 1"
    scale = "scale=flags=lanczos+accurate_rnd:out_color_matrix=bt709:out_range=tv,format=yuv420p"
    colour = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
    muxer = "-movflags +faststart -fflags +bitexact -flags:v +bitexact -map_metadata -1"
    options = [*source.split(), "-vf", scale, *codec.split(), *colour.split(), *muxer.split()]
    _run(["ffmpeg", "-v", "error", "-y", *options, str(path)], frames)


def render_frames(portrait: Image) -> Iterator[Image]:
    """Yield the clip's frames in order."""
    for index in range(CLIP_FRAMES):
        face = portrait
        for eye in EYES:
            face = close_eye(face, eye, lid_closure(index / FRAME_RATE_HZ))
        x, y = motion_maps(index / (CLIP_FRAMES - 1), portrait.shape[1], portrait.shape[0])
        frame = cv2.remap(face, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT)
        yield np.asarray(frame, np.uint8)


def lid_closure(time_s: float) -> float:
    """Return how far the lids are shut at a time, from 0 (open) to 1."""
    return max(_blink(time_s - start) for start in BLINK_STARTS_S)


def close_eye(face: Image, eye: Eye, closure: float) -> Image:
    """Draw the upper lid over one eye, shut by the given share."""
    if closure <= 0.0:
        return face
    x, y = _grid(face.shape[1], face.shape[0])
    upper, drop = _lid(eye, x, closure)
    lash_top = upper - eye.lash_px
    brow = lash_top - eye.brow_gap_px
    # Skin between brow and lashes stretches; the lashes ride down on it unchanged.
    stretched = brow + (y - brow) * (lash_top - brow) / (lash_top + drop - brow)
    source = np.where(y < brow, y, np.where(y < lash_top + drop, stretched, y - drop))
    moved = cv2.remap(
        face, x, source.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    # The half pixel makes the lid's edge fade instead of stepping from row to row.
    cover = np.clip(upper + drop - y + 0.5, 0.0, 1.0) * np.clip(drop, 0.0, 1.0)
    blend = face + cover[..., None] * (moved.astype(np.float32) - face)
    return np.asarray(np.clip(np.rint(blend), 0, 255), np.uint8)


def motion_maps(progress: float, width: int, height: int) -> tuple[Field, Field]:
    """Return where each pixel of a frame comes from, at a share of the clip."""
    x, y = _grid(width, height)
    x, y = _camera(x, y, progress)
    return _head(x, y, progress)


def write_voice(path: Path) -> None:
    """Write the spoken sentences as a mono WAV file."""
    spoken = [_speak(text) for text in VOICE_SENTENCES]
    rate_hz = spoken[0][0]
    pause = _silence(VOICE_PAUSE_S, rate_hz)
    parts = [_silence(VOICE_MARGIN_S, rate_hz)]
    for _, samples in spoken:
        parts += [samples, pause]
    parts[-1] = _silence(VOICE_MARGIN_S, rate_hz)
    _write_wav(path, rate_hz, _normalise(np.concatenate(parts)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Render all three files next to this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("portrait", type=Path, help="astronaut.png of scikit-image")
    portrait = load_portrait(parser.parse_args(arguments).portrait)
    folder = Path(__file__).resolve().parent
    write_portrait(portrait, folder / "portrait.jpg")
    write_clip(portrait, folder / "face.mp4")
    write_voice(folder / "voice.wav")


def _decode(data: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        message = "the portrait is no picture"
        raise ValueError(message)
    return np.asarray(image, np.uint8)


def _run(argv: list[str], data: bytes = b"") -> None:
    program = shutil.which(argv[0])
    if program is None:
        message = f"{argv[0]} is not installed"
        raise FileNotFoundError(message)
    result = subprocess.run([program, *argv[1:]], input=data, capture_output=True, check=False)
    if result.returncode != 0:
        message = f"{argv[0]} failed: {result.stderr.decode(errors='replace').strip()}"
        raise RuntimeError(message)


def _grid(width: int, height: int) -> tuple[Field, Field]:
    y, x = np.indices((height, width), dtype=np.float32)
    return x, y


def _wave(progress: float, turns: int) -> float:
    # A cosine of whole half turns rests at both ends, so the clip plays back and forth smoothly.
    return math.cos(math.pi * turns * progress)


def _smooth(share: Field) -> Field:
    share = np.clip(share, 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def _camera(x: Field, y: Field, progress: float) -> tuple[Field, Field]:
    centre_x, centre_y = (x.shape[1] - 1) / 2, (x.shape[0] - 1) / 2
    scale = 1.0 / (CAMERA_ZOOM - CAMERA_ZOOM_SWING * _wave(progress, 1))
    roll = math.radians(CAMERA_ROLL_DEG) * _wave(progress, 2)
    cos, sin = scale * math.cos(roll), scale * math.sin(roll)
    x, y = x - centre_x, y - centre_y
    sway_x = CAMERA_SWAY_PX[0] * _wave(progress, 1)
    sway_y = CAMERA_SWAY_PX[1] * _wave(progress, 3)
    return cos * x - sin * y + centre_x + sway_x, sin * x + cos * y + centre_y + sway_y


def _head(x: Field, y: Field, progress: float) -> tuple[Field, Field]:
    radius = np.hypot(
        (x - HEAD_CENTRE_PX[0]) / HEAD_RADII_PX[0], (y - HEAD_CENTRE_PX[1]) / HEAD_RADII_PX[1]
    )
    rigid, still = HEAD_FALLOFF_RADII
    weight = _smooth((still - radius) / (still - rigid))
    # What is nearer to the viewer moves further: this bulge is what reads as a turning head.
    bulge = np.square(np.clip(1.0 - np.square(radius), 0.0, 1.0))
    roll = math.radians(HEAD_ROLL_DEG) * (0.7 * _wave(progress, 3) + 0.3 * _wave(progress, 4))
    turn_x = HEAD_TURN_PX[0] * _wave(progress, 3)
    turn_y = HEAD_TURN_PX[1] * _wave(progress, 4)
    nod = HEAD_NOD_PX * _wave(progress, 5)
    shift_x = weight * -roll * (y - NECK_PIVOT_PX[1]) + bulge * turn_x
    shift_y = weight * (roll * (x - NECK_PIVOT_PX[0]) + nod) + bulge * turn_y
    return (x + shift_x).astype(np.float32), (y + shift_y).astype(np.float32)


def _blink(time_s: float) -> float:
    if time_s < BLINK_CLOSE_S:
        share = time_s / BLINK_CLOSE_S
    else:
        share = 1.0 - (time_s - BLINK_CLOSE_S) / BLINK_OPEN_S
    return float(_smooth(np.array([share], np.float32))[0])


def _lid(eye: Eye, x: Field, closure: float) -> tuple[Field, Field]:
    (left_x, left_y), (right_x, right_y) = eye.left_px, eye.right_px
    along = np.clip((x - left_x) / (right_x - left_x), 0.0, 1.0)
    arch = 4.0 * along * (1.0 - along)
    upper = left_y + (right_y - left_y) * along - eye.upper_rise_px * arch
    return upper, closure * (eye.upper_rise_px + eye.lower_drop_px) * arch


def _speak(text: str) -> tuple[int, Samples]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sentence.wav"
        _run(["espeak-ng", "-v", VOICE_NAME, "-s", str(VOICE_SPEED_WPM), "-w", str(path), text])
        with wave.open(str(path), "rb") as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
            return file.getframerate(), _trim(samples)


def _trim(samples: Samples) -> Samples:
    # espeak-ng pads sentences by lengths of its own; the pauses here are to be exact.
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > VOICE_SILENCE * PCM_FULL_SCALE)
    return samples[loud[0] : loud[-1] + 1]


def _silence(duration_s: float, rate_hz: int) -> Samples:
    return np.zeros(round(duration_s * rate_hz), np.int16)


def _normalise(samples: Samples) -> Samples:
    scaled = samples.astype(np.float64) * (VOICE_PEAK / np.abs(samples.astype(np.int32)).max())
    return np.asarray(np.rint(scaled * PCM_FULL_SCALE), np.int16)


def _write_wav(path: Path, rate_hz: int, samples: Samples) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(PCM_SAMPLE_BYTES)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())


if __name__ == "__main__":
    main()
