"""The networks: the reference's numbers, with what a worker changes about them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from inference.musetalk.audio import position_code
from inference.musetalk.bisenet import BiSeNet
from inference.musetalk.device import Device
from inference.musetalk.face_reader import FaceReader
from inference.musetalk.generator import Generator
from inference.musetalk.models import Networks, fold_time, scaling
from tests.tiny_musetalk import tiny_unet, tiny_vae, tiny_whisper

#: Made by the reference implementation with the weights of ``tests/weights_recipe.py``.
GOLDEN = Path(__file__).parents[2] / "golden" / "network.npz"
#: How far an equal implementation may be from it, as a share of the largest value.
LARGEST_DIFFERENCE = 1e-4
#: Share of bytes that are so close to half a level that they may be rounded to either side.
LARGEST_SHARE = 0.001
CPU = Device.choose("cpu")

#: Configurations as published, without what says who saved them.
PUBLISHED_UNET: dict[str, Any] = {
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 384,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 8,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
PUBLISHED_VAE: dict[str, Any] = {
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 256,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
PUBLISHED_WHISPER: dict[str, Any] = {
    "activation_function": "gelu",
    "architectures": ["WhisperForConditionalGeneration"],
    "begin_suppress_tokens": [220, 50257],
    "d_model": 384,
    "decoder_layers": 4,
    "decoder_start_token_id": 50258,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "encoder_layers": 4,
    "eos_token_id": 50257,
    "forced_decoder_ids": [[1, 50259], [2, 50359], [3, 50363]],
    "is_encoder_decoder": True,
    "max_length": 448,
    "max_source_positions": 1500,
    "model_type": "whisper",
    "num_mel_bins": 80,
    "pad_token_id": 50257,
    "scale_embedding": False,
    "suppress_tokens": [1, 2, 7, 8],
    "torch_dtype": "float32",
    "vocab_size": 51865,
}


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    """Return the golden crop, and the first two of the four of everything else."""
    with np.load(GOLDEN) as arrays:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {name: tensor if name == "crop_bgr" else tensor[:2] for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Return the golden networks, as a worker moves them to a CPU."""
    unet = tiny_unet()
    fold_time(unet)
    networks = Networks(unet, tiny_vae(), tiny_whisper().encoder, BiSeNet().eval())
    networks.move(CPU)
    return networks


def answer(unet: UNet2DConditionModel, golden: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what a UNet makes of the golden latents and tokens."""
    now = torch.zeros(1, dtype=torch.long)
    with torch.inference_mode():
        made: torch.Tensor = unet(golden["unet_in"], now, golden["unet_tokens"]).sample
    return made


def encoded(networks: Networks, device: Device, crops: torch.Tensor) -> torch.Tensor:
    """Return the latents of faces."""
    with torch.inference_mode():
        return FaceReader(networks, device).encode(crops)


def share(found: torch.Tensor, due: torch.Tensor) -> float:
    """Return how far numbers are from others, as a share of the largest."""
    assert found.shape == due.shape
    return float((found - due).abs().max() / due.abs().max())


def test_the_unet_paints_what_the_references_does(golden: dict[str, torch.Tensor]) -> None:
    painted = answer(tiny_unet(), golden)

    assert share(painted, golden["unet_out"]) <= LARGEST_DIFFERENCE


def test_with_the_time_in_its_biases_it_still_does(
    networks: Networks, golden: dict[str, torch.Tensor]
) -> None:
    painted = answer(networks.unet, golden)

    assert share(painted, golden["unet_out"]) <= LARGEST_DIFFERENCE


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_the_weights_time_changes_nothing_once_it_is_in_the_biases(
    seed: int, golden: dict[str, torch.Tensor]
) -> None:
    unet = tiny_unet(seed)
    before = answer(unet, golden)

    fold_time(unet)

    assert share(answer(unet, golden), before) < 1e-5


def test_a_face_has_the_references_latents(
    networks: Networks, golden: dict[str, torch.Tensor]
) -> None:
    latents = encoded(networks, CPU, golden["crop_bgr"][None])

    assert latents.dtype == torch.float32
    assert share(latents, golden["latents"]) <= LARGEST_DIFFERENCE


def test_the_lower_half_of_a_face_is_hidden_in_the_first_latents_and_not_in_the_second(
    networks: Networks, golden: dict[str, torch.Tensor]
) -> None:
    crop = golden["crop_bgr"]
    silent = crop.clone()
    silent[128:] = 0

    of_crop, of_silent = encoded(networks, CPU, torch.stack([crop, silent]))

    assert share(of_crop[:4], of_silent[:4]) < 1e-5
    assert share(of_crop[4:], of_silent[4:]) > 0.1
    assert share(of_silent[4:], of_silent[:4]) < 1e-5


def test_the_same_face_has_the_same_latents_twice(
    networks: Networks, golden: dict[str, torch.Tensor]
) -> None:
    first, second = (encoded(networks, CPU, golden["crop_bgr"][None]) for _ in range(2))

    assert torch.equal(first, second)


def test_half_black_pictures_keep_their_digits_on_a_cpu(
    networks: Networks, golden: dict[str, torch.Tensor]
) -> None:
    crop = golden["crop_bgr"][None]
    exactly = Device(torch.device("cpu"), torch.float64)
    exact = replace(networks, vae=deepcopy(networks.vae).double())

    latents, due = encoded(networks, CPU, crop), encoded(exact, exactly, crop)

    # Thirty times as far off where the channels of a picture come last: see Device.layout.
    assert share(latents, due) <= LARGEST_DIFFERENCE


def test_faces_are_the_references_to_a_level(
    networks: Networks, golden: dict[str, torch.Tensor]
) -> None:
    # The golden tokens have their position code already.
    windows = golden["unet_tokens"] - position_code()

    with torch.inference_mode():
        faces = Generator(networks, CPU)(golden["unet_in"], windows)

    due = golden["decoded_bgr"]
    assert (faces.dtype, faces.shape) == (torch.uint8, due.shape)
    assert (faces.int() - due.int()).abs().max() <= 1
    assert (faces != due).float().mean() <= LARGEST_SHARE


def test_the_published_configurations_make_networks_of_the_published_shapes() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(PUBLISHED_UNET)
        vae = AutoencoderKL.from_config(PUBLISHED_VAE)
        whisper = WhisperEncoder(WhisperConfig(**PUBLISHED_WHISPER))

    assert [size(network) for network in (unet, vae, whisper)] == [
        (686, 849_947_844),
        (248, 83_653_863),
        (67, 8_208_384),
    ]
    # What the configuration calls the width of a head is their number.
    assert {module.heads for module in unet.modules() if hasattr(module, "heads")} == {8}
    assert scaling(vae) == 0.18215


def size(network: torch.nn.Module) -> tuple[int, int]:
    """Return how many tensors a network's file has, and how many numbers they hold."""
    tensors = network.state_dict().values()
    return len(tensors), sum(tensor.numel() for tensor in tensors)
