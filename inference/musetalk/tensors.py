"""Files of tensors: read whichever is published, and call what is in them as it is called now."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

Tensors = Mapping[str, torch.Tensor]

#: What the attention of a VAE was called before diffusers 0.15, and is called since.
RENAMED = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
#: How the encoder's tensors begin in OpenAI's file for transformers, which has a decoder as well.
ENCODER_PREFIXES = ("model.encoder.", "encoder.")


def read_tensors(path: Path) -> Tensors:
    """Return the tensors of a file, by name, mapped from the disk where its format allows it.

    Never runs code that a file may contain. Raises ``ValueError`` if it cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Files of before PyTorch 1.6 are no archives, and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        return dict(torch.load(path, map_location="cpu", mmap=mapped, weights_only=True))
    except Exception as error:
        # What a damaged file makes the libraries raise has no common base, and may say nothing.
        raise ValueError(f"it cannot be read: {str(error) or type(error).__name__}") from error


def renamed_attention(tensors: Tensors) -> Tensors:
    """Return a VAE's tensors under the names of today."""
    return {_renamed(name): tensor for name, tensor in tensors.items()}


def _renamed(name: str) -> str:
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def encoder_only(tensors: Tensors) -> Tensors:
    """Return the tensors of Whisper's encoder, under its own names."""
    return {
        name.removeprefix(prefix): tensor
        for prefix in ENCODER_PREFIXES
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
