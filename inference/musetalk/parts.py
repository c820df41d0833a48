"""Put MuseTalk together in two halves: what needs no GPU, and can be snapshot, and what does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from inference.faces.dwpose import DwposeTracker, open_dwpose
from inference.musetalk.device import TORCH_VERSION, Device
from inference.musetalk.face_reader import FaceReader
from inference.musetalk.generator import MuseTalkMouth
from inference.musetalk.models import Networks, read_networks
from inference.parts import FACE_OPTIONS, Parts
from inference.weights import (
    FETCH_COMMAND,
    VERIFY_COMMAND,
    Network,
    WeightsError,
    find_weights,
    weights_identity,
)


@dataclass(frozen=True, slots=True)
class ReadMuseTalk:
    """Hold what was read from the weights directory, in the machine's own memory."""

    networks: Networks
    dwpose: Path
    identity: str


def read_musetalk(directory: Path) -> ReadMuseTalk:
    """Read the weights: the half of a cold start that needs no GPU.

    Raises :class:`WeightsError`, which names the file and the command that mends it.
    """
    dwpose = find_weights(directory, Network.DWPOSE)
    return ReadMuseTalk(read_networks(directory), dwpose, weights_identity(directory))


def musetalk_parts(
    read: ReadMuseTalk, device: Device, batch_size: int, compiled: Path | None = None
) -> Parts:
    """Move the networks to their device and warm them up: the other half.

    ``compiled`` is where compiled networks are remembered; None runs them as they are. Raises
    :class:`WeightsError` if the tracker's file cannot be used.
    """
    # Every batch has one shape, so the time to find the fastest kernels for it is well spent.
    torch.backends.cudnn.benchmark = device.is_cuda
    read.networks.move(device)
    mouth, maker = MuseTalkMouth(read.networks, device), FaceReader(read.networks, device)
    if compiled is not None:
        mouth.compile(compiled)
    if device.is_cuda or compiled is not None:
        mouth.warm_up(batch_size)
        maker.warm_up(batch_size)
    tracker = _tracker(read.dwpose, device)
    return Parts(
        name="musetalk",
        weights=read.identity,
        precision=str(device.dtype).removeprefix("torch."),
        tracker=tracker,
        maker=maker,
        mouth=mouth,
        options=FACE_OPTIONS,
        batch_size=batch_size,
        device=device.name,
        torch=TORCH_VERSION,
        cuda=device.cuda,
        tracker_device=tracker.device,
        memory=device,
        check=device.check,
    )


def _tracker(path: Path, device: Device) -> DwposeTracker:
    try:
        return open_dwpose(path, str(device.place))
    except ValueError as error:
        raise WeightsError(
            f"{path} cannot be used: {error} `{VERIFY_COMMAND}` tells what is wrong,"
            f" `{FETCH_COMMAND}` mends."
        ) from error
