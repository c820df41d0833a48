"""Finding faces with DWPose: where its network sees them, in any picture, in any memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import ref

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import parser
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from handler.errors import OutOfMemory
from handler.job import Params
from inference.batching import Batch
from inference.faces.box import face_box
from inference.faces.dwpose import DwposeTracker, Session, open_dwpose
from inference.frame import Box, Frame
from tests.tiny_dwpose import face_points, write_tiny_dwpose

FPS = Fraction(25)
SQUARE = (512, 512)
#: Centre across, bridge of the nose down, width: as shares of the frame.
FACE = (0.45, 0.4, 0.3)
Floats = NDArray[np.float32]


def light(size: tuple[int, int] = SQUARE) -> Frame:
    """Return a grey picture, in which the tiny network sees its face."""
    return Frame(np.full(Frame.size_bytes(*size), 128, np.uint8), *size)


def dark(size: tuple[int, int] = SQUARE) -> Frame:
    """Return a black picture, in which it sees none."""
    frame = light(size)
    frame.planes.y[:] = 16
    return frame


def striped(left: int, width: int = 24) -> Frame:
    """Return a black picture with a white stripe, which is what :class:`Reader` looks at."""
    frame = dark()
    frame.planes.y[:, left : left + width] = 235
    return frame


def track(
    tracker: DwposeTracker, frames: Iterable[Frame], batch: int = 8, **options: Any
) -> list[Box | None]:
    """Return the boxes of a film of 25 frames a second."""
    return list(tracker.track(frames, FPS, Params(**options), Batch(batch)))


def is_near(box: Box | None, other: Box | None, pixels: float) -> bool:
    """Tell whether no side of two boxes is further apart than that."""
    assert box is not None
    assert other is not None
    sides = ("left", "top", "right", "bottom")
    return all(abs(getattr(box, side) - getattr(other, side)) <= pixels for side in sides)


@pytest.fixture
def tracker(tmp_path: Path) -> DwposeTracker:
    """Open the tiny network."""
    return open_dwpose(write_tiny_dwpose(tmp_path / "tiny.onnx", FACE), "cpu")


class Reader:
    """A network that sees a face around a white stripe, and keeps the pictures that it saw last.

    If it squints, it sees all of it further to the right, and the left of it further down.
    """

    def __init__(
        self,
        squint_bins: int = 0,
        peak: float = 0.9,
        blind_to: Sequence[int] = (),
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        self.squint_bins, self.peak, self.blind_to = squint_bins, peak, blind_to
        self.providers = providers
        self.seen = np.empty((0, 3, 384, 288), np.float32)

    def get_inputs(self) -> Sequence[Any]:
        return [_described("pictures", 3, 384, 288)]

    def get_outputs(self) -> Sequence[Any]:
        return [_described("columns", 133, 576), _described("rows", 133, 768)]

    def get_providers(self) -> Sequence[str]:
        return self.providers

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> Sequence[Floats]:
        self.seen = inputs["pictures"]
        across, down = 2 * face_points((0, 0.5, 0.3), (288, 384)).T
        stripes = [np.flatnonzero(row > 0) for row in self.seen[:, 0, 192]]
        # Where there is none, the face is far outside, which is to say nowhere.
        middles = [2 * stripe.mean() + 0.5 if stripe.size else -9999 for stripe in stripes]
        columns = [middle + self.squint_bins + across for middle in middles]
        rows = [down - self.squint_bins * np.sign(across.round(6))] * len(stripes)
        return [self._logits(columns, 576, self.peak), self._logits(rows, 768, 0.9)]

    def _logits(self, places: Sequence[NDArray[np.float64]], bins: int, peak: float) -> Floats:
        logits = np.zeros((len(places), 133, bins), np.float32)
        away = np.arange(bins) - np.array(places)[..., None]
        logits[:, 23:91] = peak * np.exp(-((away / 6) ** 2) / 2)
        logits[:, [23 + point for point in self.blind_to]] -= 1
        return logits


class Cramped:
    """A session that has room for two pictures, and says so in ONNX Runtime's words."""

    def __init__(self, session: Session, fault: Exception) -> None:
        self.session, self.fault = session, fault
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self.get_providers = session.get_providers

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> Sequence[Floats]:
        if any(len(pictures) > 2 for pictures in inputs.values()):
            raise self.fault
        return self.session.run(names, inputs)


def _described(name: str, *shape: int) -> SimpleNamespace:
    return SimpleNamespace(name=name, shape=["batch", *shape], type="tensor(float)")


# -- where it runs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("providers", "device"),
    [
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda"),
        (["CPUExecutionProvider"], "cpu"),
    ],
)
def test_a_tracker_says_where_its_network_came_to_run(
    providers: Sequence[str], device: str
) -> None:
    assert DwposeTracker(Reader(providers=providers)).device == device


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA"
)
def test_a_tracker_that_did_not_get_the_gpu_it_was_to_have_says_so(tmp_path: Path) -> None:
    tracker = open_dwpose(write_tiny_dwpose(tmp_path / "tiny.onnx", FACE), "cuda:0")

    assert tracker.device == "cpu"


# -- where the face is -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(576, 768), (1920, 1080), (512, 512), (1080, 1920), (320, 240)])
@pytest.mark.parametrize("face", [FACE, (0.6, 0.55, 0.2)])
def test_the_box_is_around_the_face_in_a_picture_of_any_shape(
    tmp_path: Path, size: tuple[int, int], face: tuple[float, float, float]
) -> None:
    tracker = open_dwpose(write_tiny_dwpose(tmp_path / "tiny.onnx", face, size), "cpu")

    (box,) = track(tracker, [light(size)])

    # A landmark is half a pixel of the network wide, and the top is three of them away.
    step = 1.25 * max(size[0], 0.75 * size[1]) / 576
    assert is_near(box, face_box(face_points(face, size), Box(0, 0, 1, 1), 0), 2 * step + 1)


@pytest.mark.parametrize(
    ("face", "box"),
    [
        ((0.05, 0.5, 0.3), Box(0, 156, 102, 355)),
        ((0.95, 0.5, 0.3), Box(409, 156, 563, 355)),
        ((0.5, 0.1, 0.3), Box(179, 0, 332, 151)),
        ((0.5, 0.9, 0.3), Box(179, 361, 332, 560)),
    ],
    ids=["left", "right", "top", "bottom"],
)
def test_a_face_at_the_edge_is_found(
    tmp_path: Path, face: tuple[float, float, float], box: Box
) -> None:
    tracker = open_dwpose(write_tiny_dwpose(tmp_path / "tiny.onnx", face), "cpu")

    (found,) = track(tracker, [light()])

    # Cut at the left, and reaching beyond the other edges, as the reference has it.
    assert is_near(found, box, 3)


def test_the_face_of_each_picture_is_its_own() -> None:
    boxes = track(DwposeTracker(Reader()), [striped(100), striped(200), striped(300)])

    assert [box.left + box.width / 2 for box in boxes if box] == pytest.approx(
        [112, 212, 312], abs=2
    )


def test_the_option_moves_the_middle_of_the_box(tracker: DwposeTracker) -> None:
    (plain,) = track(tracker, [light()])
    (moved,) = track(tracker, [light()], bbox_shift=9)

    assert plain is not None
    assert moved == Box(plain.left, plain.top + 18, plain.right, plain.bottom)


def test_the_mirrored_picture_corrects_a_network_that_squints() -> None:
    straight, squinting = Reader(), Reader(squint_bins=5)

    (true,) = track(DwposeTracker(straight), [striped(150)])
    (wrong,) = track(DwposeTracker(squinting), [striped(150)])
    (corrected,) = track(DwposeTracker(squinting, flip=True), [striped(150)])

    # Each step is a bin, of 1.1 pixels in this picture.
    assert not is_near(wrong, true, 3)
    assert is_near(corrected, true, 1.2)


# -- what the network sees -------------------------------------------------------------------------


def test_the_network_sees_colours_as_it_was_trained_to() -> None:
    red, network = light(), Reader()
    for plane, level in zip(red.planes, (81, 90, 240), strict=True):
        plane[:] = level

    track(DwposeTracker(network), [red])

    # Red, green and blue, less the mean, by the deviation; outside the picture it is black.
    reds = [(254 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    black = [-123.675 / 58.395, *reds[1:]]
    assert network.seen[0, :, 192, 144] == pytest.approx(reds, abs=0.03)
    assert network.seen[0, :, 0, 0] == pytest.approx(black, abs=0.001)


@pytest.mark.parametrize(
    ("size", "columns", "rows"),
    [
        ((576, 768), (28.8, 259.2), (38.4, 345.6)),
        ((1920, 1080), (28.8, 259.2), (127.2, 256.8)),
        ((320, 640), (67.2, 220.8), (38.4, 345.6)),
    ],
)
def test_the_network_sees_all_of_the_picture_with_a_border(
    size: tuple[int, int], columns: tuple[float, float], rows: tuple[float, float]
) -> None:
    white, network = light(size), Reader()
    white.planes.y[:] = 235

    track(DwposeTracker(network), [white])

    lit_rows, lit_columns = np.nonzero(network.seen[0, 0] > 0)
    assert (lit_columns.min(), lit_columns.max() + 1) == pytest.approx(columns, abs=1)
    assert (lit_rows.min(), lit_rows.max() + 1) == pytest.approx(rows, abs=1)


# -- whether there is one --------------------------------------------------------------------------


def test_there_is_no_face_where_the_network_sees_none(tracker: DwposeTracker) -> None:
    boxes = track(tracker, [dark()] * 3 + [light()] * 2 + [dark()] * 3)

    assert [box is not None for box in boxes] == [False] * 3 + [True] * 2 + [False] * 3


def test_a_face_that_the_network_doubts_is_none() -> None:
    assert track(DwposeTracker(Reader(peak=0.31)), [striped(200)]) != [None]
    assert track(DwposeTracker(Reader(peak=0.29)), [striped(200)]) == [None]


def test_a_face_whose_ear_is_hidden_has_a_box_without_it() -> None:
    (whole,) = track(DwposeTracker(Reader()), [striped(200)])
    (partial,) = track(DwposeTracker(Reader(blind_to=[0, 1])), [striped(200)])

    assert is_near(partial, whole, 8)
    assert partial != whole


def test_a_face_missed_for_a_moment_is_bridged_and_for_longer_is_gone(
    tracker: DwposeTracker,
) -> None:
    boxes = track(tracker, [light(), *[dark()] * 5, light(), *[dark()] * 20, light()])

    assert None not in boxes[:7]
    assert boxes[7:-1] == [None] * 20


def test_no_face_flies_across_a_cut() -> None:
    film = [striped(100), dark(), dark(), striped(400)]

    boxes = track(DwposeTracker(Reader()), film)

    assert [box is not None for box in boxes] == [True, False, False, True]


def test_a_film_without_frames_has_no_boxes(tracker: DwposeTracker) -> None:
    assert track(tracker, []) == []


# -- in any memory ---------------------------------------------------------------------------------


def test_the_size_of_the_batch_does_not_show(tracker: DwposeTracker) -> None:
    film = [striped(left) for left in range(0, 480, 40)] + [light(), dark()]

    assert track(tracker, film, batch=8) == track(tracker, film, batch=1)


def test_a_network_for_one_picture_at_a_time_finds_the_same(
    tracker: DwposeTracker, tmp_path: Path
) -> None:
    single = open_dwpose(write_tiny_dwpose(tmp_path / "single.onnx", FACE, batch=1), "cpu")
    film = [light(), dark(), light(), light()] * 3

    assert track(single, film) == track(tracker, film)


@pytest.mark.parametrize(
    "fault",
    [
        faults.RuntimeException("BFCArena::AllocateRawInternal Failed to allocate memory for"),
        faults.Fail("CUDA failure 2: out of memory ; GPU=0"),
        faults.EPFail("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED"),
        faults.RuntimeException("Exception during initialization: std::bad_alloc"),
    ],
    ids=["arena", "cuda", "cudnn", "cpu"],
)
def test_a_batch_that_finds_no_room_is_halved_until_it_does(fault: Exception) -> None:
    film, batch = [striped(left) for left in range(0, 440, 40)], Batch(8)

    boxes = DwposeTracker(Cramped(Reader(), fault)).track(film, FPS, Params(), batch)

    assert boxes == track(DwposeTracker(Reader()), film)
    assert batch.size == 2


def test_onnx_runtimes_own_words_for_want_of_memory_are_understood(tmp_path: Path) -> None:
    # Wants 64 to the power of the batch's size: for 8 more than a process can address.
    greedy = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        greedy (float[N, 3, 384, 288] input)
            => (float[N, 133, 576] simcc_x, float[N, 133, 768] simcc_y)
        <int64[1] base = {64}, float one = {1}, int64[2] x = {133, 576}, int64[2] y = {133, 768}>
        {
            batch = Shape<end = 1>(input)
            size = Pow(base, batch)
            hoard = Expand(one, size)
            most = ReduceMax<keepdims = 0>(hoard)
            shape_x = Concat<axis = 0>(batch, x)
            shape_y = Concat<axis = 0>(batch, y)
            simcc_x = Expand(most, shape_x)
            simcc_y = Expand(most, shape_y)
        }
    """)
    onnx.save(greedy, tmp_path / "greedy.onnx")
    batch = Batch(8)

    boxes = open_dwpose(tmp_path / "greedy.onnx", "cpu").track([light()] * 8, FPS, Params(), batch)

    assert (len(boxes), batch.size) == (8, 4)


def test_when_not_even_one_picture_finds_room_the_job_is_told_so() -> None:
    class Full(Cramped):
        def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> Sequence[Floats]:
            raise self.fault

    full = Full(Reader(), faults.RuntimeException("Failed to allocate memory for requested buffer"))

    with pytest.raises(OutOfMemory):
        track(DwposeTracker(full), [striped(100)])


def test_another_fault_of_the_network_is_not_taken_for_want_of_memory() -> None:
    broken = Cramped(Reader(), faults.RuntimeException("CUDA failure 700: illegal memory access"))

    with pytest.raises(faults.RuntimeException, match="700"):
        track(DwposeTracker(broken), [striped(100)] * 3)


def test_a_film_of_any_length_is_never_held(tracker: DwposeTracker) -> None:
    given: list[ref[NDArray[np.uint8]]] = []
    most = 0

    def film() -> Iterator[Frame]:
        nonlocal most
        for _ in range(40):
            frame = light()
            given.append(ref(frame.buffer))
            most = max(most, sum(buffer() is not None for buffer in given))
            yield frame

    boxes = track(tracker, film())

    assert (len(boxes), most) == (40, 1)


def test_a_worker_without_a_gpu_takes_the_cpu(tmp_path: Path) -> None:
    tracker = open_dwpose(write_tiny_dwpose(tmp_path / "tiny.onnx", FACE), "cuda:0")

    assert track(tracker, [light()]) != [None]
