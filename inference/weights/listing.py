"""The files of parameters that MuseTalk needs, where they come from and where they lie.

Source: MuseTalk's own ``download_weights.sh``; DWPose as the ONNX file beside its checkpoint. Sizes
and checksums are those on which several public projects agree that fetch the same commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

#: What a user runs to get what is missing and to replace what is wrong.
FETCH_COMMAND = "musetalk-worker weights fetch"
#: What a user runs to know whether the files are what they should be.
VERIFY_COMMAND = "musetalk-worker weights verify"


class WeightsError(Exception):
    """The weights cannot be used as they are; the message says what to do."""


class WeightsMissing(WeightsError):
    """The weights directory lacks a file."""


class Network(StrEnum):
    """Name one of the networks that a frame passes through."""

    UNET = "unet"
    VAE = "vae"
    WHISPER = "whisper"
    DWPOSE = "dwpose"
    BISENET = "bisenet"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """Name one file below the weights directory, and the public commit that has it.

    ``converted`` is the slimmer file that ``build/convert_weights.py`` makes of it, which serves
    in its place. ``size_bytes`` and ``sha256`` are None where they are not publicly known: what
    comes first is then pinned, see :mod:`inference.weights.lock`.
    """

    path: str
    repository: str
    revision: str
    name: str
    licence: str
    size_bytes: int | None = None
    sha256: str | None = None
    network: Network | None = None
    converted: str | None = None

    @property
    def alternatives(self) -> Sequence[str]:
        """Return the paths below the weights directory that serve, the preferred one first."""
        return (self.path,) if self.converted is None else (self.converted, self.path)

    def present(self, directory: Path) -> str | None:
        """Return which of its paths the file has in a directory; None if it is not there.

        Raises :class:`WeightsError` if this user may not look.
        """
        try:
            return next((path for path in self.alternatives if (directory / path).is_file()), None)
        except PermissionError as error:
            raise WeightsError(f"The weights cannot be read: {error}.") from error

    def find(self, directory: Path) -> str:
        """Return which of its paths the file has in a directory.

        Raises :class:`WeightsMissing`, which names the file and the command that brings it.
        """
        path = self.present(directory)
        if path is None:
            names = " or ".join(self.alternatives)
            raise WeightsMissing(f"{directory} lacks {names}: run `{FETCH_COMMAND}`.")
        return path


#: The README of MuseTalk and the model card beside its weights differ; the licences of the others
#: are those of their model cards, or of the code that they came with.
MUSETALK_LICENCE = "CreativeML-OpenRAIL-M (model card); any purpose, even commercial (README)"
WHISPER_LICENCE = "Apache-2.0 (model card); MIT (OpenAI)"
BISENET_LICENCE = "MIT (code); trained on CelebAMask-HQ, which is for non-commercial research"

WEIGHTS = (
    WeightsFile(
        path="musetalkV15/unet.pth",
        repository="TMElyralab/MuseTalk",
        revision="3ef28bc5cff08c90ad8178a25f1b570cd800170f",
        name="musetalkV15/unet.pth",
        licence=MUSETALK_LICENCE,
        size_bytes=3_400_074_924,
        sha256="7ebf6c98c181e20838e4c0054e96e944ac60d5d692cc01db42839fe11b787007",
        network=Network.UNET,
        converted="musetalkV15/unet.safetensors",
    ),
    WeightsFile(
        path="musetalkV15/musetalk.json",
        repository="TMElyralab/MuseTalk",
        revision="3ef28bc5cff08c90ad8178a25f1b570cd800170f",
        name="musetalkV15/musetalk.json",
        licence=MUSETALK_LICENCE,
        size_bytes=748,
        sha256="5b6923aee04d71692e0e9846c471e0a4ea07a4f686d39545e472bd4ba17e1b47",
    ),
    WeightsFile(
        path="sd-vae/diffusion_pytorch_model.bin",
        repository="stabilityai/sd-vae-ft-mse",
        revision="31f26fdeee1355a5c34592e401dd41e45d25a493",
        name="diffusion_pytorch_model.bin",
        licence="MIT",
        size_bytes=334_707_217,
        sha256="1b4889b6b1d4ce7ae320a02dedaeff1780ad77d415ea0d744b476155c6377ddc",
        network=Network.VAE,
        converted="sd-vae/diffusion_pytorch_model.safetensors",
    ),
    WeightsFile(
        path="sd-vae/config.json",
        repository="stabilityai/sd-vae-ft-mse",
        revision="31f26fdeee1355a5c34592e401dd41e45d25a493",
        name="config.json",
        licence="MIT",
        size_bytes=547,
        sha256="92d3dfb746fca211a2c9e019e285f8597412211728dce3c5bcf4eda0f2d62e7e",
    ),
    WeightsFile(
        path="whisper/pytorch_model.bin",
        repository="openai/whisper-tiny",
        revision="169d4a4341b33bc18d8881c4b69c2e104e1cc0af",
        name="pytorch_model.bin",
        licence=WHISPER_LICENCE,
        size_bytes=151_095_027,
        sha256="9607f98a2b22d9e229ae43c52ecea79dcede9e0c5cfae67e8da6eda86d8aac1d",
        network=Network.WHISPER,
        converted="whisper/model.safetensors",
    ),
    WeightsFile(
        path="whisper/config.json",
        repository="openai/whisper-tiny",
        revision="169d4a4341b33bc18d8881c4b69c2e104e1cc0af",
        name="config.json",
        licence=WHISPER_LICENCE,
        size_bytes=1_983,
        sha256="ffdccec4f3211f4c63310f2b7098f309fe70f3952cedc5e4d11e43f5b2379b98",
    ),
    WeightsFile(
        path="dwpose/dw-ll_ucoco_384.onnx",
        repository="yzd-v/DWPose",
        revision="f7c16a3d45ad3783db41471848c80fbc281cabac",
        name="dw-ll_ucoco_384.onnx",
        licence="Apache-2.0",
        size_bytes=134_399_116,
        sha256="724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
        network=Network.DWPOSE,
    ),
    WeightsFile(
        path="face-parse-bisent/79999_iter.pth",
        repository="ManyOtherFunctions/face-parse-bisent",
        revision="0073b233a5a3c4b1377d4dbf49245017938a72b5",
        name="79999_iter.pth",
        licence=BISENET_LICENCE,
        size_bytes=53_289_463,
        sha256="468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
        network=Network.BISENET,
        converted="face-parse-bisent/79999_iter.safetensors",
    ),
)


def missing_weights(
    directory: Path, listing: Sequence[WeightsFile] = WEIGHTS
) -> Sequence[WeightsFile]:
    """Return the files that a directory lacks; a converted one is as good as the published."""
    return [file for file in listing if file.present(directory) is None]


def find_weights(
    directory: Path, network: Network, listing: Sequence[WeightsFile] = WEIGHTS
) -> Path:
    """Return the file with a network's parameters: the converted one, else the published.

    Raises :class:`WeightsMissing`, which names the file and the command that brings it.
    """
    file = next(file for file in listing if file.network is network)
    return directory / file.find(directory)
