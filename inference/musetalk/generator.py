"""MuseTalk's mouth: a UNet that paints over the lower half of a face what the voice asks for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from handler.errors import MouthBlank
from inference.avatar import AvatarFrame
from inference.avatar_file import LATENTS_SHAPE
from inference.batching import Batch
from inference.frame import Planes
from inference.matrix import Bgr, Matrix, planes_of
from inference.mouth import Shot
from inference.musetalk.audio import (
    CHANNELS,
    STEP_SAMPLES,
    TOKENS,
    features,
    position_code,
    windows,
)
from inference.musetalk.device import Device, padded, working
from inference.musetalk.models import Networks, scaling
from inference.pipeline import one_behind


class Generator(nn.Module):
    """Generate faces from what is known of them and from what they are to say."""

    def __init__(self, networks: Networks, device: Device) -> None:
        super().__init__()
        self._unet, self._vae = networks.unet, networks.vae
        self._positions = position_code().to(device.place, device.dtype)
        self._timestep = torch.zeros(1, dtype=torch.long, device=device.place)

    def forward(self, latents: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """Return faces as uint8 [n, 256, 256, 3], blue first.

        ``latents`` [n, 8, 32, 32]: the face without its lower half, then whole. ``windows``
        [n, 50, 384]: :func:`inference.musetalk.audio.windows`. One step at time 0, without noise or
        guidance (MuseTalk, ``inference.py``), decoded and rounded half to even (``vae.py``).
        """
        painted = self._unet(latents, self._timestep, windows + self._positions, return_dict=False)
        rgb = self._vae.decode(painted[0] / scaling(self._vae), return_dict=False)[0]
        # In place: a batch is large, and memory that comes and goes costs more than the numbers.
        shades: torch.Tensor = (rgb / 2).add_(0.5).clamp_(0, 1).float().mul_(255)
        # What is no number has no integer: the same everywhere, it can be told from a face.
        red, green, blue = shades.nan_to_num_(0).round_().to(torch.uint8).unbind(1)
        return torch.stack((blue, green, red), dim=-1)


class MuseTalkMouth:
    """Move lips as MuseTalk does."""

    def __init__(self, networks: Networks, device: Device) -> None:
        """Speak with networks that are on the device already."""
        self._whisper = networks.whisper
        self._generator = Generator(networks, device)
        self._device = device

    def compile(self, cache: Path) -> None:
        """Compile the networks for one shape when they first run; remember that in ``cache``."""
        # PyTorch has no other way to say so, and chooses a place of its own as it is imported.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
        self._generator.compile(dynamic=False)

    def warm_up(self, batch_size: int) -> None:
        """Run everything once on blanks, so that the first job does not wait for kernels."""
        device = self._device
        silence = np.zeros(STEP_SAMPLES, np.float32)
        list(features([silence], self._whisper, device))
        with working(), torch.inference_mode():
            # In this mode, as a job's are made: for others the networks would be compiled again.
            latents = torch.zeros(batch_size, *LATENTS_SHAPE).to(device.place, device.dtype)
            tokens = torch.zeros(batch_size, TOKENS, CHANNELS).to(latents)
            device.receive(self._generator(latents, tokens))()

    def listen(
        self, sound: Iterable[NDArray[np.float32]], fps: Fraction, frames: int
    ) -> Iterator[torch.Tensor]:
        """Yield what each frame hears, as :func:`inference.musetalk.audio.windows` does."""
        return windows(features(sound, self._whisper, self._device), fps, frames)

    def speak(self, shots: Iterable[Shot], batch: Batch) -> Iterator[tuple[Shot, Planes | None]]:
        """Yield each shot and its mouth; one batch is painted while the one before is fitted."""
        for shown, faces in one_behind(batch.run(partial(self._start, batch), shots)):
            painted = iter(faces())
            for shot in shown:
                if shot.place is None or shot.cue is None:
                    yield shot, None
                else:
                    face = _with_features(next(painted))
                    yield shot, fit_face(face, shot.place, shot.frame.matrix)

    def _start(self, batch: Batch, shots: Sequence[Shot]) -> Callable[[], NDArray[np.uint8]]:
        """Begin to paint those who speak; the returned function waits for [n, 256, 256, 3]."""
        speaking = [
            (shot.place.latents, shot.cue)
            for shot in shots
            if shot.place is not None and shot.cue is not None
        ]
        if not speaking:
            return lambda: np.empty(0, np.uint8)
        known, cues = zip(*speaking, strict=True)
        with working(), torch.inference_mode():
            latents = self._device.send(known).to(self._device.dtype)
            faces = self._generator(
                padded(latents, self._device, batch.size),
                padded(torch.stack(cues).to(latents), self._device, batch.size),
            )
            return self._device.receive(faces[: len(speaking)])


def _with_features(face: Bgr) -> Bgr:
    """Return a generated face; raise :class:`MouthBlank` if it is of a single shade.

    So are faces of NaN, and those that half precision drove to one of its ends.
    """
    if face.min() == face.max():
        raise MouthBlank(
            "The networks' numbers ran out of bounds. Are the weights whole? If DTYPE is float16,"
            " try float32."
        )
    return face


def fit_face(face: Bgr, place: AvatarFrame, matrix: Matrix) -> Planes:
    """Return the part of a generated face [256, 256, 3] that lies in a place's box.

    Stretched to the face's size, bilinear (MuseTalk, ``inference.py``). The box may be a pixel
    larger on each side: there the mask is 0, and the face's edge is repeated.
    """
    box, whole = place.box, place.face
    grown = cv2.resize(face, (whole.width, whole.height), interpolation=cv2.INTER_LINEAR)
    top, left = box.top - whole.top, box.left - whole.left
    rows = np.clip(np.arange(top, top + box.height), 0, whole.height - 1)
    columns = np.clip(np.arange(left, left + box.width), 0, whole.width - 1)
    part = grown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    missing_top, missing_left = max(0, -top), max(0, -left)
    border = (
        missing_top,
        box.height - missing_top - part.shape[0],
        missing_left,
        box.width - missing_left - part.shape[1],
    )
    part = cv2.copyMakeBorder(part, *border, cv2.BORDER_REPLICATE)
    return Planes(*planes_of(np.asarray(part, np.uint8), matrix))
