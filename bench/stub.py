"""MuseTalk with networks that cost nothing: what is left is this worker's own part of a job.

Everything else is real: crops and their resizing, batches, the avatar's file with latents in it,
masks by the real rule, log-mel, the face's way back into the frame.

    .venv/bin/python -m bench.stub FACE VOICE SCRATCH

runs one job, with a Whisper of the real size instead of the one that costs nothing: it is what
memory is measured of.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from bench.footage import Footage
from bench.jobs import Studio
from inference.faces.haar import HaarTracker
from inference.masks import MAP_SIDE_PIXELS, MOUTH, SKIN
from inference.musetalk.audio import CHANNELS, LAYERS
from inference.musetalk.device import Device
from inference.musetalk.face_reader import FACE_SIDE_PIXELS, FaceReader
from inference.musetalk.generator import MuseTalkMouth
from inference.musetalk.models import Networks
from inference.parts import FACE_OPTIONS, Parts

BATCH = 8
#: Whisper's steps in 30 s.
STEPS = 1500
#: Pixels to a latent, along each side.
LATENT_PIXELS = 8
#: Middle and half axes of a face, and of its mouth, in the square around it (across, down).
FACE_ELLIPSE = (256, 256), (150, 190)
MOUTH_ELLIPSE = (256, 345), (60, 25)


def stub_parts(whisper: nn.Module | None = None) -> Parts:
    """Put MuseTalk together without networks; ``whisper`` listens instead of the stub."""
    device = Device(torch.device("cpu"), torch.float32)
    stubs: Any = {"unet": _Unet(), "vae": _Vae(), "parser": _Parser()}
    networks = Networks(whisper=cast("WhisperEncoder", whisper or _Whisper()), **stubs)
    return Parts(
        name="stub",
        tracker=HaarTracker(),
        maker=FaceReader(networks, device),
        mouth=MuseTalkMouth(networks, device),
        options=FACE_OPTIONS,
        batch_size=BATCH,
    )


class _Unet(nn.Module):
    def forward(self, latents: Tensor, *_: Tensor, return_dict: bool) -> tuple[Tensor]:
        return (latents[:, :4],)


class _Vae:
    """Read a few pixels of a face, and have one face ready for all."""

    def __init__(self) -> None:
        self.config = {"scaling_factor": 1.0}
        noise = np.random.default_rng(0).random((1, 3, FACE_SIDE_PIXELS, FACE_SIDE_PIXELS))
        self._face = torch.from_numpy(2 * noise.astype(np.float32) - 1)

    def encode(self, pictures: Tensor, *, return_dict: bool) -> tuple[SimpleNamespace]:
        pixels = pictures[:, :1, ::LATENT_PIXELS, ::LATENT_PIXELS]
        return (SimpleNamespace(mean=pixels.expand(-1, 4, -1, -1)),)

    def decode(self, latents: Tensor, *, return_dict: bool) -> tuple[Tensor]:
        return (self._face.expand(len(latents), -1, -1, -1),)


class _Whisper(nn.Module):
    def forward(self, mel: Tensor, *, output_hidden_states: bool) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=[torch.zeros(1, STEPS, CHANNELS)] * LAYERS)


class _Parser(nn.Module):
    """See the same face in every picture."""

    def __init__(self) -> None:
        super().__init__()
        classes = np.zeros((MAP_SIDE_PIXELS, MAP_SIDE_PIXELS), np.uint8)
        cv2.ellipse(classes, *FACE_ELLIPSE, 0, 0, 360, SKIN, cv2.FILLED)
        cv2.ellipse(classes, *MOUTH_ELLIPSE, 0, 0, 360, MOUTH[0], cv2.FILLED)
        self._classes = torch.from_numpy(classes)

    def forward(self, images: Tensor) -> Tensor:
        return self._classes.expand(len(images), -1, -1)


def main() -> None:
    """Run one job."""
    face, voice, scratch = map(Path, sys.argv[1:])
    whisper = WhisperEncoder(WhisperConfig()).train(mode=False)
    Studio.bare(stub_parts(whisper), scratch).film(Footage(face, voice))


if __name__ == "__main__":
    main()
