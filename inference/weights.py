"""The files of parameters that MuseTalk needs, and where they come from.

Source: MuseTalk's own ``download_weights.sh``; DWPose as the ONNX file beside its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """Name one file below the weights directory, and the public repository that has it."""

    path: str
    repository: str


WEIGHTS = (
    WeightsFile("musetalkV15/unet.pth", "TMElyralab/MuseTalk"),
    WeightsFile("musetalkV15/musetalk.json", "TMElyralab/MuseTalk"),
    WeightsFile("sd-vae/diffusion_pytorch_model.bin", "stabilityai/sd-vae-ft-mse"),
    WeightsFile("sd-vae/config.json", "stabilityai/sd-vae-ft-mse"),
    WeightsFile("whisper/pytorch_model.bin", "openai/whisper-tiny"),
    WeightsFile("whisper/config.json", "openai/whisper-tiny"),
    WeightsFile("dwpose/dw-ll_ucoco_384.onnx", "yzd-v/DWPose"),
    WeightsFile("face-parse-bisent/79999_iter.pth", "ManyOtherFunctions/face-parse-bisent"),
)


def missing_weights(directory: Path) -> Sequence[WeightsFile]:
    """Return the files that a directory lacks."""
    return [file for file in WEIGHTS if not (directory / file.path).is_file()]
