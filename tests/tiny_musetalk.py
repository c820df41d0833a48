"""Make a small MuseTalk: the real files, loaders and code, with few and random parameters.

Its networks have the shapes at their ends that the published ones have, and the configurations of
the golden numbers between.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import WhisperConfig, WhisperModel

from inference.musetalk.bisenet import BiSeNet
from tests.tiny_dwpose import write_tiny_dwpose
from tests.weights_recipe import GOLDEN_SEED, fill

GOLDEN = Path(__file__).parent / "golden"
#: Where the sample face's nose is, and how wide its jaw: shares of the picture.
SAMPLE_FACE = (0.434, 0.22, 0.2)


def golden_meta() -> dict[str, Any]:
    """Return how the networks of the golden numbers are built."""
    meta: dict[str, Any] = json.loads((GOLDEN / "meta.json").read_text(encoding="utf-8"))
    return meta


def tiny_unet(seed: int = GOLDEN_SEED) -> UNet2DConditionModel:
    """Return the UNet of the golden numbers."""
    return fill(UNet2DConditionModel.from_config(golden_meta()["unet_config"]), seed)


def tiny_vae(seed: int = GOLDEN_SEED) -> AutoencoderKL:
    """Return the VAE of the golden numbers."""
    return fill(AutoencoderKL.from_config(golden_meta()["vae_config"]), seed)


def tiny_whisper(seed: int = GOLDEN_SEED) -> WhisperModel:
    """Return the Whisper of the golden numbers, decoder and all."""
    return fill(WhisperModel(WhisperConfig(**golden_meta()["whisper_config"])), seed)


def write_tiny_musetalk(
    directory: Path,
    *,
    face: tuple[float, float, float] = SAMPLE_FACE,
    frame: tuple[int, int] = (512, 512),
    seed: int = GOLDEN_SEED,
) -> Path:
    """Write a weights directory, as published, that sees one face in frames of one shape."""
    meta = golden_meta()
    folders = ("musetalkV15", "sd-vae", "whisper", "dwpose", "face-parse-bisent")
    for folder in folders:
        (directory / folder).mkdir(parents=True)
    for path, configuration in {
        "musetalkV15/musetalk.json": meta["unet_config"],
        "sd-vae/config.json": meta["vae_config"],
        "whisper/config.json": meta["whisper_config"],
    }.items():
        (directory / path).write_text(json.dumps(configuration), encoding="utf-8")
    for path, network in {
        "musetalkV15/unet.pth": tiny_unet(seed),
        "sd-vae/diffusion_pytorch_model.bin": tiny_vae(seed),
        "whisper/pytorch_model.bin": tiny_whisper(seed),
        "face-parse-bisent/79999_iter.pth": fill(BiSeNet(), seed),
    }.items():
        torch.save(network.state_dict(), directory / path)
    write_tiny_dwpose(directory / "dwpose/dw-ll_ucoco_384.onnx", face, frame)
    return directory
