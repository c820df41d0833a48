"""Make the weights slimmer, 2.1 GB instead of 4.1: half precision, and of Whisper the encoder.

MuseTalk's own half precision (``realtime_inference.py``) is of the same three networks; those that
find and parse faces stay as they are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from inference.musetalk.tensors import Tensors, encoder_only, read_tensors, renamed_attention
from inference.weights.listing import WEIGHTS, Network, WeightsError, WeightsFile, WeightsMissing
from inference.weights.lock import Pin, pin, read_lock, settle, write_lock
from inference.weights.verify import judge

#: Is told of each file that is done.
Report = Callable[[str], None]


def _copied(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """Return copies in a precision, of which no two share memory; what counts stays as it is."""
    return {
        name: tensor.to(
            dtype if tensor.is_floating_point() else tensor.dtype,
            copy=True,
            memory_format=torch.contiguous_format,
        )
        for name, tensor in tensors.items()
    }


def _unet(tensors: Tensors) -> Tensors:
    return _copied(tensors, torch.float16)


def _vae(tensors: Tensors) -> Tensors:
    return _copied(renamed_attention(tensors), torch.float16)


def _whisper(tensors: Tensors) -> Tensors:
    """Return the encoder alone, named as in a file that has a decoder as well."""
    encoder = _copied(encoder_only(tensors), torch.float16)
    return {f"encoder.{name}": tensor for name, tensor in encoder.items()}


def _bisenet(tensors: Tensors) -> Tensors:
    return _copied(tensors, torch.float32)


#: What is done to the tensors of each network that is stored as tensors.
CONVERSIONS: Mapping[Network | None, Callable[[Tensors], Tensors]] = {
    Network.UNET: _unet,
    Network.VAE: _vae,
    Network.WHISPER: _whisper,
    Network.BISENET: _bisenet,
}


def convert_weights(
    source: Path, target: Path, report: Report, listing: Sequence[WeightsFile] = WEIGHTS
) -> None:
    """Make a slim weights directory of a published one, with a lock of its own.

    Files are read one after the other, so that no more than one is in memory. Raises
    :class:`WeightsError` if a file of the source is missing or not as published, or cannot be
    read, or the target cannot be written to.
    """
    published = read_lock(source)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in listing:
            _check(source, file, published.get(file.path))
            name, made = _convert(file, source, target)
            # Pinned one by one, so that each file has its pin as soon as it has its name.
            write_lock(target, {**read_lock(target), name: made})
            report(name)
    except OSError as error:
        raise WeightsError(f"The weights cannot be converted: {error}.") from error


def _check(source: Path, file: WeightsFile, known: Pin | None) -> None:
    if not (source / file.path).is_file():
        raise WeightsMissing(f"{source} lacks {file.path}: only published files are converted.")
    finding = judge(source / file.path, file, file.path, known)
    if not finding.usable:
        raise WeightsError(f"{source / file.path} has the {finding.verdict}: fetch it again.")


def _convert(file: WeightsFile, source: Path, target: Path) -> tuple[str, Pin]:
    name = file.converted or file.path
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=target) as place:
        part = Path(place) / Path(name).name
        _write(file, source / file.path, part)
        settle(part)
        made = pin(part, file)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        part.replace(target / name)
    return name, made


def _write(file: WeightsFile, published: Path, part: Path) -> None:
    convert = CONVERSIONS.get(file.network)
    if convert is None:
        shutil.copyfile(published, part)
        return
    try:
        tensors = convert(read_tensors(published))
    except ValueError as error:
        raise WeightsError(f"{published} cannot be converted: {error}.") from error
    save_file(dict(tensors), part)
    # The library makes files that nobody else can read, and another user may run the worker.
    shutil.copymode(published, part)
