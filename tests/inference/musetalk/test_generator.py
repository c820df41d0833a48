"""MuseTalk's mouth: every shot gets its own face, in whatever batches there is memory for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from itertools import compress, count
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from handler.errors import MouthBlank, OutOfMemory, WorkerBroken
from inference.avatar import AvatarFrame
from inference.batching import Batch
from inference.frame import Box, Frame, Plane, Planes
from inference.matrix import Bgr, Matrix, planes_of
from inference.mouth import Shot
from inference.musetalk.bisenet import BiSeNet
from inference.musetalk.device import Device
from inference.musetalk.generator import Generator, MuseTalkMouth, fit_face
from inference.musetalk.models import Networks
from tests.tiny_musetalk import golden_meta, tiny_whisper
from tests.weights_recipe import fill

CPU = Device.choose("cpu")
SIDE = 64
#: A face, and the even box around it that changes.
FACE, BOX = Box(11, 5, 50, 58), Box(10, 30, 50, 58)
#: How far two batches may be apart, and on the mean two precisions: levels of luma or chroma.
ROUNDING_LEVELS, HALF_LEVELS = 1, 4


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Return networks as wide at their ends as the published ones, and very narrow between."""
    meta = golden_meta()
    narrow = {"norm_num_groups": 4}
    unet = meta["unet_config"] | narrow | {"block_out_channels": [8] * 4}
    vae = meta["vae_config"] | narrow | {"block_out_channels": [4, 4, 8, 8]}
    return Networks(
        fill(UNet2DConditionModel.from_config(unet)),
        fill(AutoencoderKL.from_config(vae)),
        tiny_whisper().encoder,
        BiSeNet().eval(),
    )


@pytest.fixture(scope="module")
def mouth(networks: Networks) -> MuseTalkMouth:
    return MuseTalkMouth(networks, CPU)


class Changed(nn.Module):
    """A UNet that does something else before it paints."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: torch.Tensor, *inputs: Any, **options: Any) -> Any:
        self.before(latents)
        return self.network(latents, *inputs, **options)

    def before(self, latents: torch.Tensor) -> None:
        raise NotImplementedError


class Cramped(Changed):
    """A UNet with memory for two."""

    def before(self, latents: torch.Tensor) -> None:
        if len(latents) > 2:
            raise torch.OutOfMemoryError(f"no memory for {len(latents)}")


class Starved(Changed):
    """A UNet that asks a CPU for more memory than there is."""

    def before(self, latents: torch.Tensor) -> None:
        torch.empty(2**60)


class Lost(Changed):
    """A UNet whose GPU has failed."""

    def before(self, latents: torch.Tensor) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


class Compiled(Changed):
    """A UNet that is compiled anew for each kind of input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.kinds: set[tuple[Any, ...]] = set()

    def before(self, latents: torch.Tensor) -> None:
        shape, strides = tuple(latents.shape), latents.stride()
        self.kinds.add((shape, strides, latents.dtype, latents.is_inference()))


class Faulty(Changed):
    """A UNet with a bug."""

    def before(self, latents: torch.Tensor) -> None:
        raise RuntimeError("sizes of tensors must match")


class Overflown(Changed):
    """A UNet whose numbers run out of bounds."""

    value: float

    def forward(self, latents: torch.Tensor, *inputs: Any, **options: Any) -> Any:
        (painted,) = self.network(latents, *inputs, **options)
        return (painted * self.value,)


class Boundless(Overflown):
    """A UNet that gives no numbers."""

    value = math.nan


class Blinding(Overflown):
    """A UNet whose numbers no half precision holds."""

    value = math.inf


def changed(networks: Networks, change: Callable[[nn.Module], Changed]) -> MuseTalkMouth:
    """Return a mouth whose UNet is another."""
    unet: Any = change(networks.unet)
    return MuseTalkMouth(replace(networks, unet=unet), CPU)


def place(number: int) -> AvatarFrame:
    """Return a face that no other number has."""
    latents = np.random.default_rng(number).standard_normal((8, 32, 32)).astype(np.float32)
    return AvatarFrame(BOX, b"", FACE, latents)


def shot(number: int) -> Shot:
    """Return a shot of one face and one sound that no other number has."""
    pixels = np.full(Frame.size_bytes(SIDE, SIDE), number, np.uint8)
    chance = torch.Generator().manual_seed(number)
    return Shot(Frame(pixels, SIDE, SIDE), place(number), torch.randn(50, 384, generator=chance))


def shots(total: int) -> list[Shot]:
    return [shot(number) for number in range(total)]


def placeless(shot: Shot) -> Shot:
    """Return a shot in which no face was found."""
    return replace(shot, place=None)


def cueless(shot: Shot) -> Shot:
    """Return a shot after the end of the voice."""
    return replace(shot, cue=None)


def spoken(mouth: MuseTalkMouth, shots: Sequence[Shot], batch: Batch) -> list[Planes | None]:
    """Return the faces of shots, after a look at whether these are the shots that went in."""
    found = list(mouth.speak(shots, batch))
    assert [shown for shown, _ in found] == shots
    return [face for _, face in found]


def apart(found: Planes | None, due: Planes | None) -> int:
    """Return by how many levels two faces differ at most."""
    assert found is not None
    assert due is not None
    pairs = zip(found, due, strict=True)
    return max(int(np.abs(one.astype(int) - other).max()) for one, other in pairs)


def all_alike(found: Sequence[Planes | None], due: Sequence[Planes | None]) -> bool:
    """Tell whether faces are the same, but for rounding."""
    pairs = zip(found, due, strict=True)
    return all(apart(one, other) <= ROUNDING_LEVELS for one, other in pairs)


def test_a_face_is_what_its_own_latents_and_its_own_sound_make(mouth: MuseTalkMouth) -> None:
    first, second = shots(2)

    faces = spoken(mouth, [first, second], Batch(1))
    other_sound = spoken(mouth, [replace(first, cue=second.cue)], Batch(1))
    other_face = spoken(mouth, [replace(first, place=second.place)], Batch(1))

    assert apart(faces[0], other_sound[0]) > 20
    assert apart(faces[0], other_face[0]) > 20
    assert apart(faces[0], faces[1]) > 20


def test_a_face_is_fitted_into_its_place_in_the_frame(
    mouth: MuseTalkMouth, networks: Networks
) -> None:
    shown = shot(1)
    assert shown.place is not None
    latents = torch.from_numpy(shown.place.latents)[None]

    (face,) = spoken(mouth, [shown], Batch(8))

    with torch.inference_mode():
        painted = Generator(networks, CPU)(latents, shown.cue[None])[0].numpy()
    assert apart(face, fit_face(painted, shown.place, shown.frame.matrix)) == 0


@pytest.mark.parametrize("size", [1, 3, 8, 64])
def test_faces_are_the_same_whatever_the_batch(size: int, mouth: MuseTalkMouth) -> None:
    film = shots(9)

    faces = spoken(mouth, film, Batch(size))

    assert all_alike(faces, spoken(mouth, film, Batch(2)))


@pytest.mark.parametrize(
    "speaking",
    [
        [False, True, True, True, True, True],
        [True, True, True, True, True, False],
        [True, False, True, True, False, True],
        [True, False, False, False, False, True],
        [False] * 6,
    ],
)
@pytest.mark.parametrize("lacks", ["place", "cue"])
def test_a_frame_that_does_not_speak_puts_no_other_out_of_step(
    speaking: list[bool], lacks: str, mouth: MuseTalkMouth
) -> None:
    film = shots(6)
    faces = spoken(mouth, film, Batch(8))
    mute = {"place": placeless, "cue": cueless}[lacks]
    gaps = [each if speaks else mute(each) for each, speaks in zip(film, speaking, strict=True)]

    found = spoken(mouth, gaps, Batch(2))

    assert [face is not None for face in found] == speaking
    assert all_alike([*compress(found, speaking)], [*compress(faces, speaking)])


def test_nothing_to_show_is_nothing_to_say(mouth: MuseTalkMouth) -> None:
    assert spoken(mouth, [], Batch(8)) == []


def test_the_same_job_gives_the_same_bytes_twice(mouth: MuseTalkMouth) -> None:
    first, second = (spoken(mouth, shots(4), Batch(3)) for _ in range(2))

    for one, other in zip(first, second, strict=True):
        assert apart(one, other) == 0


def test_a_batch_too_large_for_the_memory_is_halved_and_all_faces_come_out(
    mouth: MuseTalkMouth, networks: Networks
) -> None:
    film, batch = shots(9), Batch(8)

    faces = spoken(changed(networks, Cramped), film, batch)

    assert batch.size == 2
    assert all_alike(faces, spoken(mouth, film, Batch(2)))


def test_a_cpu_without_memory_is_told_from_a_bug(networks: Networks) -> None:
    with pytest.raises(OutOfMemory, match="even one frame at a time") as failure:
        spoken(changed(networks, Starved), shots(2), Batch(2))

    assert "can't allocate memory" in str(failure.value.__cause__)


def test_a_lost_gpu_asks_for_another_process(networks: Networks) -> None:
    with pytest.raises(WorkerBroken, match="cannot use it any more"):
        spoken(changed(networks, Lost), shots(2), Batch(2))


@pytest.mark.parametrize("overflown", [Boundless, Blinding])
def test_numbers_out_of_bounds_are_no_face(networks: Networks, overflown: type[Overflown]) -> None:
    with pytest.raises(MouthBlank, match="Are the weights whole") as failure:
        spoken(changed(networks, overflown), shots(2), Batch(2))

    assert not failure.value.retryable


def test_a_bug_in_a_network_stays_a_bug(networks: Networks) -> None:
    with pytest.raises(RuntimeError, match="sizes of tensors must match"):
        spoken(changed(networks, Faulty), shots(2), Batch(2))


def test_no_more_frames_are_held_than_the_batch_shown_and_the_next(mouth: MuseTalkMouth) -> None:
    asked: list[int] = []

    def film() -> Iterator[Shot]:
        for number in count():
            asked.append(number)
            yield shot(number)

    found = mouth.speak(film(), Batch(2))
    held = []
    for _ in range(4):
        next(found)
        held.append(len(asked))

    assert held == [4, 4, 6, 6]


def test_bfloat16_says_the_same_less_precisely(networks: Networks, mouth: MuseTalkMouth) -> None:
    half = Device.choose("cpu", "bfloat16")
    moved = deepcopy(networks)
    moved.move(half)
    sound = [(np.sin(np.arange(16_000) / 20) / 3).astype(np.float32)]

    def film(speaker: MuseTalkMouth) -> list[Planes | None]:
        cues = speaker.listen(sound, Fraction(25), 2)
        heard = [replace(each, cue=cue) for each, cue in zip(shots(2), cues, strict=True)]
        return spoken(speaker, heard, Batch(2))

    faces = film(MuseTalkMouth(moved, half))

    for found, due in zip(faces, film(mouth), strict=True):
        assert found is not None
        assert due is not None
        assert 0 < np.abs(found.y.astype(int) - due.y).mean() < HALF_LEVELS


def test_warming_up_runs_what_a_job_runs_and_changes_nothing(mouth: MuseTalkMouth) -> None:
    (before,) = spoken(mouth, [shot(3)], Batch(1))

    mouth.warm_up(2)

    (after,) = spoken(mouth, [shot(3)], Batch(1))
    assert apart(after, before) == 0


def test_what_was_compiled_while_warming_up_is_not_compiled_again_for_a_job(
    networks: Networks,
) -> None:
    compiled = Compiled(networks.unet)
    mouth = changed(networks, lambda _: compiled)

    mouth.warm_up(2)
    spoken(mouth, shots(4), Batch(2))

    assert len(compiled.kinds) == 1


def ramp() -> Bgr:
    """Return a grey face [256, 256, 3] that is lighter to the right and, half as much, below."""
    rows, columns = np.mgrid[0:256, 0:256]
    return np.repeat(((rows // 2 + columns) // 2)[..., None], 3, axis=2).astype(np.uint8)


def stretched(whole: Box) -> Bgr:
    """Return the ramp in another size, bilinear as in the reference."""
    size = (whole.width, whole.height)
    return np.asarray(cv2.resize(ramp(), size, interpolation=cv2.INTER_LINEAR), np.uint8)


def luma(face: Bgr) -> Plane:
    """Return how light a face is; its sides may be odd."""
    return np.asarray(cv2.transform(face, Matrix.BT601.from_bgr[:1]), np.uint8)


def fitted(face: Bgr, box: Box, whole: Box, matrix: Matrix = Matrix.BT601) -> Planes:
    return fit_face(face, AvatarFrame(box, b"", whole), matrix)


@pytest.mark.parametrize(
    ("matrix", "red"), [(Matrix.BT601, (81, 90, 240)), (Matrix.BT709, (63, 102, 240))]
)
def test_a_face_of_one_colour_has_it_in_the_standard_of_the_frame(
    matrix: Matrix, red: tuple[int, int, int]
) -> None:
    face = np.full((256, 256, 3), (0, 0, 255), np.uint8)

    planes = fitted(face, BOX, FACE, matrix)

    assert [plane.shape for plane in planes] == [(28, 40), (14, 20), (14, 20)]
    assert tuple(set(plane.flat) for plane in planes) == tuple({value} for value in red)


def test_what_is_seen_of_a_face_lies_where_the_whole_would() -> None:
    whole, box = Box(10, 20, 266, 276), Box(30, 148, 230, 270)

    planes = fitted(ramp(), box, whole)

    for found, due in zip(planes, planes_of(ramp()[128:250, 20:220], Matrix.BT601), strict=True):
        assert np.array_equal(found, due)


def test_a_face_is_stretched_to_its_size_between_pixels() -> None:
    whole = Box(0, 0, 100, 40)

    planes = fitted(ramp(), whole, whole)

    assert np.array_equal(planes.y, luma(stretched(whole)))


def test_a_box_one_pixel_larger_than_the_face_repeats_its_edge() -> None:
    whole, box = Box(11, 21, 267, 277), Box(10, 20, 268, 278)

    planes = fitted(ramp(), box, whole)

    assert np.array_equal(planes.y, np.pad(luma(ramp()), 1, mode="edge"))


@given(
    st.integers(0, SIDE - 8), st.integers(0, SIDE - 8), st.integers(8, SIDE), st.integers(8, SIDE)
)
def test_a_face_fits_anywhere_in_the_frame_be_it_odd_or_in_a_corner(
    left: int, top: int, width: int, height: int
) -> None:
    whole = Box(left, top, min(SIDE, left + width), min(SIDE, top + height))
    box = whole.clipped(SIDE, SIDE)

    planes = fitted(ramp(), box, whole)

    assert planes.y.shape == (box.height, box.width)
    assert planes.u.shape == planes.v.shape == (box.height // 2, box.width // 2)
    inside = planes.y[whole.top - box.top :, whole.left - box.left :]
    assert np.array_equal(inside[: whole.height, : whole.width], luma(stretched(whole)))
