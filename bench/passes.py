"""One pass of each network on random input, and how much there is to compute in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from inference.avatar_file import LATENTS_SHAPE
from inference.masks import MAP_SIDE_PIXELS
from inference.musetalk.audio import CHANNELS, PIECE_SAMPLES, TOKENS, features
from inference.musetalk.bisenet import normalised
from inference.musetalk.device import Device
from inference.musetalk.face_reader import FACE_SIDE_PIXELS, FaceReader
from inference.musetalk.generator import Generator
from inference.musetalk.models import Networks

#: What is timed, once its input is there.
Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pass:
    """Hold how a pass begins, given networks, their device and a batch; ``gflop`` is of one item.

    At full size, a multiplication and an addition being two, over matrix products and convolutions.
    """

    name: str
    gflop: float
    begin: Callable[[Networks, Device, int], Work]


def _unet(networks: Networks, device: Device, batch: int) -> Work:
    latents, windows = _random_cue(device, batch)
    return lambda: networks.unet(latents, 0, windows, return_dict=False)


def _decoder(networks: Networks, device: Device, batch: int) -> Work:
    latents, _ = _random_cue(device, batch)
    return lambda: networks.vae.decode(latents[:, :4], return_dict=False)


def generating(generator: Generator, device: Device, batch: int) -> Work:
    """Begin a pass of the UNet and the decoder, as in a job."""
    latents, windows = _random_cue(device, batch)
    return lambda: generator(latents, windows)


def _random_cue(device: Device, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    # As in a job: what is compiled for other tensors than those of inference is compiled again.
    with torch.inference_mode():
        latents, windows = torch.randn(batch, *LATENTS_SHAPE), torch.randn(batch, TOKENS, CHANNELS)
        return latents.to(device.place, device.dtype), windows.to(device.place, device.dtype)


def _encoder(networks: Networks, device: Device, batch: int) -> Work:
    pictures, reader = _pictures(device, batch, FACE_SIDE_PIXELS), FaceReader(networks, device)
    return lambda: reader.encode(pictures)


def _parser(networks: Networks, device: Device, batch: int) -> Work:
    pictures = _pictures(device, batch, MAP_SIDE_PIXELS)
    return lambda: networks.parser(normalised(pictures))


def _pictures(device: Device, batch: int, side: int) -> torch.Tensor:
    return torch.randint(256, (batch, side, side, 3), dtype=torch.uint8).to(device.place)


def hearing(networks: Networks, device: Device) -> Work:
    """Begin a pass of Whisper over 30 s of noise."""
    sound = np.random.default_rng(0).standard_normal(PIECE_SAMPLES, np.float32)
    return lambda: list(features([sound], networks.whisper, device))


#: A frame of the film passes the first two, a source frame the others: its encoder twice.
PASSES = (
    Pass("UNet, a frame", 177.8, _unet),
    Pass("VAE decoder, a frame", 622.2, _decoder),
    Pass("VAE encoder, a source frame", 2 * 272.7, _encoder),
    Pass("BiSeNet, a source frame", 27.5, _parser),
)
FRAME_GFLOP = PASSES[0].gflop + PASSES[1].gflop
HEARING_GFLOP = 36.9
