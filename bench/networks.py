"""Weights directories of MuseTalk's published sizes, or of tiny ones, with random numbers in them.

How long a network takes depends on its shape and not on what it has learnt; files and loaders are
the real ones, in the layout of ``build/convert_weights.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from inference.masks import SKIN
from inference.musetalk.bisenet import BiSeNet
from inference.musetalk.models import CONFIGURATIONS
from inference.weights import WEIGHTS, Network

Configuration = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """Say how large the networks are; BiSeNet has one size."""

    unet: Configuration
    vae: Configuration
    whisper: Configuration


#: What is published: musetalk.json of v1.5, config.json of sd-vae-ft-mse, and Whisper tiny, whose
#: sizes are the library's own defaults.
FULL = Size(
    unet={
        "in_channels": 8,
        "out_channels": 4,
        "sample_size": 64,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 384,
    },
    vae={
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "sample_size": 256,
    },
    whisper={},
)
#: The same shapes at their ends, and next to nothing between.
TINY = Size(
    unet={**FULL.unet, "block_out_channels": [32, 64, 64, 64], "layers_per_block": 1},
    vae={**FULL.vae, "block_out_channels": [32, 32, 64, 64], "layers_per_block": 1},
    whisper={"encoder_ffn_dim": 64},
)


def write_networks(directory: Path, size: Size) -> None:
    """Write the files of all networks but the tracker."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(size.unet)
        vae = AutoencoderKL.from_config(size.vae)
        whisper = WhisperEncoder(WhisperConfig(**size.whisper))
        parser = BiSeNet()
    _write(directory, Network.UNET, _random(unet), size.unet)
    _write(directory, Network.VAE, _random(vae), size.vae)
    _write(directory, Network.WHISPER, _random(whisper, "encoder."), size.whisper)
    classes = _random(parser, dtype=torch.float32)
    # Its features are positive: a row of ones wins, and all is skin. Else there might be no mouth.
    classes["conv_out.conv_out.weight"][SKIN] = 1
    _write(directory, Network.BISENET, classes)


def _random(
    network: nn.Module, prefix: str = "", dtype: torch.dtype = torch.float16
) -> dict[str, Tensor]:
    """Return parameters for a network that has none, such that signals neither vanish nor grow."""
    return {
        f"{prefix}{name}": _values(name, tensor.shape, dtype)
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


def _values(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    if name.endswith(("bias", "running_mean")):
        return torch.zeros(shape, dtype=dtype)
    if len(shape) == 1:
        # What normalisation multiplies by, or divides by.
        return torch.ones(shape, dtype=dtype)
    return torch.empty(shape, dtype=dtype).normal_(std=prod(shape[1:]) ** -0.5)


def _write(
    directory: Path,
    network: Network,
    tensors: Mapping[str, Tensor],
    configuration: Configuration | None = None,
) -> None:
    name = next(file.converted for file in WEIGHTS if file.network is network)
    path = directory / f"{name}"
    path.parent.mkdir(parents=True)
    save_file(dict(tensors), path)
    if configuration is not None:
        path.with_name(CONFIGURATIONS[network]).write_text(json.dumps(configuration))
