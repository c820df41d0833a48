"""What is learnt of a face: the same every time, in whatever batches, and of the face alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import compress, count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn

from handler.errors import OutOfMemory
from handler.job import Params, ParsingMode
from inference.avatar import AvatarFrame
from inference.batching import Batch
from inference.frame import Box, Frame
from inference.matrix import Bgr, Matrix, planes_of
from inference.musetalk.bisenet import BiSeNet
from inference.musetalk.device import Device
from inference.musetalk.face_reader import FaceReader
from inference.musetalk.models import Networks
from tests.tiny_musetalk import golden_meta, tiny_unet, tiny_whisper
from tests.weights_recipe import fill

PORTRAIT = Path(__file__).parents[2] / "golden" / "frame.png"
SIZE = (256, 256)
#: Where the portrait's face is at that size, without what is added below the chin.
FACE = Box(75, 44, 137, 108)
#: How far the latents of two batches may be apart, and those of half precision: shares.
ROUNDING, HALF = 1e-5, 0.1
#: How far the masks of two batches may be apart on the mean, where two classes are as likely.
ROUNDING_LEVELS = 0.5
#: With this one the parser takes most of the portrait for skin.
SKIN_SEED = 130
CPU = Device.choose("cpu")

Record = AvatarFrame | None


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Return the real face parser, which is small, and a very narrow VAE."""
    narrow = {"norm_num_groups": 4, "block_out_channels": [4, 4, 8, 8]}
    vae = fill(AutoencoderKL.from_config(golden_meta()["vae_config"] | narrow))
    return Networks(tiny_unet(), vae, tiny_whisper().encoder, fill(BiSeNet(), SKIN_SEED))


@pytest.fixture(scope="module")
def reader(networks: Networks) -> FaceReader:
    return FaceReader(networks, CPU)


@pytest.fixture(scope="module")
def portrait() -> Bgr:
    picture = np.asarray(cv2.imread(str(PORTRAIT)), np.uint8)
    return np.asarray(cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA), np.uint8)


@pytest.fixture(scope="module")
def film(portrait: Bgr) -> list[Frame]:
    """Return three pictures of one face, each darker than the last."""
    return [frame_of((portrait * (1 - 0.08 * number)).astype(np.uint8)) for number in range(3)]


@pytest.fixture(scope="module")
def records(reader: FaceReader, film: list[Frame]) -> list[AvatarFrame]:
    """Return what is learnt of each of them when it is read alone."""
    return present(read(reader, [FACE] * 3, film, Batch(1)))


def frame_of(bgr: Bgr) -> Frame:
    """Return a picture as a decoder would hand it over."""
    planes = planes_of(bgr, Matrix.BT601)
    return Frame(np.concatenate([plane.ravel() for plane in planes]), *SIZE)


def read(
    reader: FaceReader,
    faces: Sequence[Box | None],
    frames: Sequence[Frame],
    batch: Batch,
    **options: Any,
) -> list[Record]:
    return list(reader.make(faces, frames, SIZE, Params(**options), batch))


def present(records: Sequence[Record]) -> list[AvatarFrame]:
    """Return the records of faces that are all there."""
    found = [record for record in records if record is not None]
    assert len(found) == len(records)
    return found


def share(found: AvatarFrame, due: AvatarFrame) -> float:
    """Return how far the latents of a face are from another's, as a share of the largest."""
    assert found.latents is not None
    assert due.latents is not None
    assert found.latents.shape == (8, 32, 32)
    return float(np.abs(found.latents - due.latents).max() / np.abs(due.latents).max())


def all_alike(found: Sequence[AvatarFrame], due: Sequence[AvatarFrame]) -> bool:
    """Tell whether records are the same, but for rounding."""
    return all(
        (one.face, one.box) == (other.face, other.box)
        and share(one, other) < ROUNDING
        and np.abs(one.mask.astype(int) - other.mask).mean() < ROUNDING_LEVELS
        for one, other in zip(found, due, strict=True)
    )


def test_a_face_is_known_by_its_place_its_mask_and_its_latents(
    records: list[AvatarFrame],
) -> None:
    found = records[0]

    assert found.face == Box(75, 44, 137, 118)
    assert found.mask.shape == (found.box.height, found.box.width)
    assert found.mask.max() > 200
    assert found.box.clipped(*SIZE) == found.box
    # Only the lower half is ever replaced.
    assert found.box.top >= (44 + 118) // 2 - 8
    assert found.latents is not None
    assert found.latents.dtype == np.float32


def test_the_same_picture_is_read_the_same_twice(
    reader: FaceReader, film: list[Frame], records: list[AvatarFrame]
) -> None:
    (again,) = present(read(reader, [FACE], film[:1], Batch(1)))

    assert share(again, records[0]) == 0
    assert again.mask_png == records[0].mask_png


@pytest.mark.parametrize("size", [2, 8])
def test_faces_are_read_the_same_whatever_the_batch(
    size: int, reader: FaceReader, film: list[Frame], records: list[AvatarFrame]
) -> None:
    found = present(read(reader, [FACE] * 3, film, Batch(size)))

    assert all_alike(found, records)
    assert share(records[0], records[1]) > 100 * ROUNDING


@pytest.mark.parametrize("visible", [[False, True, True], [True, False, True]])
def test_a_frame_without_a_face_puts_no_other_out_of_step(
    visible: list[bool], reader: FaceReader, film: list[Frame], records: list[AvatarFrame]
) -> None:
    faces = [FACE if there else None for there in visible]

    found = read(reader, faces, film, Batch(2))

    assert [record is not None for record in found] == visible
    assert all_alike([*compress(records, visible)], present([*compress(found, visible)]))


def test_a_video_without_a_face_asks_nothing_of_the_networks(
    networks: Networks, film: list[Frame]
) -> None:
    parser: Any = Cramped(networks.parser, room=0)

    found = read(FaceReader(replace(networks, parser=parser), CPU), [None] * 3, film, Batch(2))

    assert found == [None] * 3


@pytest.mark.parametrize(
    "face", [Box(252, 40, 300, 90), Box(-40, 40, 5, 90), Box(40, 250, 90, 300)]
)
def test_too_little_of_a_face_in_the_picture_is_none(
    face: Box, reader: FaceReader, film: list[Frame]
) -> None:
    found = read(reader, [face], film[:1], Batch(1))

    assert found == [None]


@pytest.mark.parametrize("face", [Box(201, 151, 280, 270), Box(0, 0, 61, 63)])
def test_a_face_in_a_corner_has_its_place_inside_the_picture(
    face: Box, reader: FaceReader, portrait: Bgr
) -> None:
    turned = frame_of(np.roll(portrait, (face.top - FACE.top, face.left - FACE.left), (0, 1)))

    (found,) = read(reader, [face], [turned], Batch(1))

    assert found is not None
    assert found.face == Box(face.left, face.top, min(256, face.right), min(256, face.bottom + 10))
    assert found.box.clipped(*SIZE) == found.box


def test_the_margin_below_the_chin_is_the_jobs(reader: FaceReader, film: list[Frame]) -> None:
    (found,) = present(read(reader, [FACE], film[:1], Batch(1), extra_margin=25))

    assert found.face == Box(75, 44, 137, 133)


def test_the_mask_is_what_the_job_wants_replaced(
    reader: FaceReader, film: list[Frame], records: list[AvatarFrame]
) -> None:
    wishes: list[dict[str, Any]] = [
        {"parsing_mode": ParsingMode.RAW},
        {"left_cheek_width": 20},
        {"right_cheek_width": 20},
    ]

    found = [present(read(reader, [FACE], film[:1], Batch(1), **wish))[0] for wish in wishes]

    assert len({record.mask_png for record in (records[0], *found)}) == 4
    assert all(share(record, records[0]) == 0 for record in found)


def test_latents_know_nothing_of_what_is_beside_the_face(
    reader: FaceReader, portrait: Bgr, records: list[AvatarFrame]
) -> None:
    # Two pixels more, for a chroma sample at the edge of the box is shared.
    elsewhere, inside = np.full_like(portrait, 40), (slice(42, 120), slice(73, 139))
    elsewhere[inside] = portrait[inside]

    (found,) = read(reader, [FACE], [frame_of(elsewhere)], Batch(1))

    assert found is not None
    assert share(found, records[0]) == 0


class Cramped(nn.Module):
    """A network with room for so many pictures at once."""

    def __init__(self, network: nn.Module, room: int) -> None:
        super().__init__()
        self.network, self.room = network, room

    def forward(self, pictures: torch.Tensor) -> Any:
        if len(pictures) > self.room:
            raise torch.OutOfMemoryError(f"no memory for {len(pictures)}")
        return self.network(pictures)


def test_a_batch_too_large_for_the_memory_is_halved_and_all_faces_are_read(
    networks: Networks, film: list[Frame], records: list[AvatarFrame]
) -> None:
    parser: Any = Cramped(networks.parser, room=1)
    batch = Batch(3)

    found = read(FaceReader(replace(networks, parser=parser), CPU), [FACE] * 3, film, batch)

    assert batch.size == 1
    assert all_alike(present(found), records)


def test_a_face_that_fits_into_no_memory_says_so(networks: Networks, film: list[Frame]) -> None:
    parser: Any = Cramped(networks.parser, room=0)
    reader = FaceReader(replace(networks, parser=parser), CPU)

    with pytest.raises(OutOfMemory, match="even one frame at a time"):
        read(reader, [FACE] * 2, film[:2], Batch(2))


def test_no_more_frames_are_held_than_the_batch_read_and_the_next(
    reader: FaceReader, film: list[Frame]
) -> None:
    asked: list[int] = []

    def endless() -> Iterator[Frame]:
        for number in count():
            asked.append(number)
            yield film[0]

    found = reader.make([FACE] * 100, endless(), SIZE, Params(), Batch(1))
    next(found)

    assert len(asked) == 2


def test_a_job_that_is_given_up_leaves_no_threads(reader: FaceReader, film: list[Frame]) -> None:
    before = set(threading.enumerate())
    found = reader.make([FACE] * 3, film, SIZE, Params(), Batch(1))

    next(found)
    assert set(threading.enumerate()) > before
    del found

    assert set(threading.enumerate()) <= before


def test_bfloat16_reads_the_same_less_precisely_into_single_precision(
    networks: Networks, film: list[Frame], records: list[AvatarFrame]
) -> None:
    half = Device.choose("cpu", "bfloat16")
    moved = deepcopy(networks)
    moved.move(half)

    (found,) = present(read(FaceReader(moved, half), [FACE], film[:1], Batch(1)))

    assert found.latents is not None
    assert found.latents.dtype == np.float32
    assert 0 < share(found, records[0]) < HALF
    # Faces are parsed in single precision, whatever the device's.
    assert found.mask_png == records[0].mask_png


def test_warming_up_runs_what_a_job_runs_and_changes_nothing(
    reader: FaceReader, film: list[Frame], records: list[AvatarFrame]
) -> None:
    reader.warm_up(1)

    assert all_alike(present(read(reader, [FACE], film[:1], Batch(1))), records[:1])
