"""The networks of MuseTalk, read from the files that are published or from converted ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from inference.musetalk.bisenet import BiSeNet
from inference.musetalk.device import Device
from inference.musetalk.tensors import encoder_only, read_tensors, renamed_attention
from inference.weights import FETCH_COMMAND, VERIFY_COMMAND, Network, WeightsError, find_weights

Tensors = Mapping[str, torch.Tensor]

#: So many letters say enough of what a library found wrong.
LONGEST_REASON = 240
#: Of a convolution's parameters, as of a batch of pictures.
PICTURE_DIMENSIONS = 4
#: The file beside a network's parameters that says how it is built.
CONFIGURATIONS = {
    Network.UNET: "musetalk.json",
    Network.VAE: "config.json",
    Network.WHISPER: "config.json",
}


@dataclass(frozen=True, slots=True)
class Networks:
    """Hold what runs in PyTorch; DWPose runs on ONNX."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    whisper: WhisperEncoder
    parser: BiSeNet

    def move(self, device: Device) -> None:
        """Move the networks to a device, in its precision.

        The face parser stays in single precision, as in MuseTalk: its classes are compared.
        """
        networks: list[nn.Module] = [self.unet, self.vae, self.whisper]
        for network in networks:
            nn.Module.to(network, device.place, device.dtype)
        self.parser.to(device.place, torch.float32)
        for network in (*networks, self.parser):
            for parameter in network.parameters():
                if parameter.dim() == PICTURE_DIMENSIONS:
                    parameter.data = parameter.data.contiguous(memory_format=device.layout)


def read_networks(directory: Path) -> Networks:
    """Read all four from a weights directory; no GPU is touched.

    Raises :class:`WeightsError`, which names the file, if one is missing, damaged, or not what its
    configuration says.
    """
    unet = _read(directory, Network.UNET, UNet2DConditionModel.from_config, dict)
    fold_time(unet)
    return Networks(
        unet=unet,
        vae=_read(directory, Network.VAE, AutoencoderKL.from_config, renamed_attention),
        whisper=_read(directory, Network.WHISPER, _whisper, encoder_only),
        parser=_read(directory, Network.BISENET, _parser, dict),
    )


def _read(
    directory: Path,
    network: Network,
    build: Callable[[Any], Any],
    adapt: Callable[[Tensors], Tensors],
) -> Any:
    path = find_weights(directory, network)
    configuration = _configuration(path, network)
    try:
        # Without memory of their own: the tensors of the file take their places as they are.
        with torch.device("meta"):
            model = build(configuration)
        model.load_state_dict(adapt(read_tensors(path)), assign=True)
    except Exception as error:
        # What the libraries raise over a strange file has no common base.
        raise _unusable(path, error) from error
    return model.eval().requires_grad_(requires_grad=False)


def _configuration(path: Path, network: Network) -> Any:
    if network not in CONFIGURATIONS:
        return None
    beside = path.with_name(CONFIGURATIONS[network])
    try:
        # Not a word: diffusers would look for a model of that name on the web.
        return dict(json.loads(beside.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError) as error:
        raise _unusable(beside, error) from error


def _unusable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} cannot be used: {_first_sentence(error)} It is damaged, or of another model:"
        f" `{VERIFY_COMMAND}` tells, `{FETCH_COMMAND}` mends."
    )


def _whisper(configuration: dict[str, Any]) -> WhisperEncoder:
    return WhisperEncoder(WhisperConfig(**configuration))


def _parser(_: None) -> BiSeNet:
    return BiSeNet()


def _first_sentence(error: Exception) -> str:
    """Cut off a page of names that do not fit, or PyTorch's advice to trust the file anyway."""
    words = " ".join(str(error).split()).partition(". ")[0]
    return f"{words[:LONGEST_REASON].rstrip('.')}."


def scaling(vae: AutoencoderKL) -> float:
    """Return by what latents are multiplied, so that they vary by about 1."""
    return float(vae.config["scaling_factor"])


def fold_time(unet: UNet2DConditionModel) -> None:
    """Add what time 0 means to the biases that it would be added to at each step anew.

    MuseTalk takes one step, always at time 0, so the time's embedding is a constant.
    """
    with torch.no_grad():
        wave = unet.time_proj(torch.zeros(1))
        embedding = nn.functional.silu(unet.time_embedding.float()(wave))
        blocks = (block for block in unet.modules() if isinstance(block, ResnetBlock2D))
        for block in blocks:
            shift = block.time_emb_proj.float()(embedding)[0]
            bias = cast("torch.Tensor", block.conv1.bias)
            folded = (bias.float() + shift).to(bias.dtype)
            block.conv1.bias = nn.Parameter(folded, requires_grad=False)
            block.register_module("time_emb_proj", None)
    unet.register_module("time_embedding", _Timeless())


class _Timeless(nn.Module):
    """Stand where the time's embedding was."""

    def forward(self, wave: torch.Tensor, condition: None = None) -> None:
        """Return none: the biases have it already."""
