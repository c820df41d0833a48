"""Follow a face by its landmarks, found by DWPose as in MuseTalk's reference, but in batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from handler.job import Params
from inference.batching import Batch, MemoryExhausted
from inference.faces.box import Landmarks, face_box, visible_box
from inference.faces.gaps import bridge_gaps
from inference.faces.keypoints import FACE, KEYPOINTS, MIRRORED
from inference.frame import Box, Frame
from inference.matrix import BLACK, GREY, Bgr

Floats = NDArray[np.float32]

#: What the network sees, and how finely it divides that (SimCC): [width, height] of
#: rtmpose-l_8xb32-270e_coco-ubody-wholebody-384x288.
INPUT_PIXELS = (288, 384)
BINS_PER_PIXEL = 2
#: How much more than a person is shown (MMPose, GetBBoxCenterScale); here one fills the picture.
PADDING = 1.25
#: Mean and standard deviation of red, green and blue in the pictures that it was trained with.
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
#: From this mean score of its points on there is a face: DWPose's authors draw points from it on.
LEAST_SCORE = 0.3

#: Shapes of its input and its two outputs, of which only the number of pictures may differ.
INPUT = (1, 3, INPUT_PIXELS[1], INPUT_PIXELS[0])
OUTPUTS = tuple((1, KEYPOINTS, BINS_PER_PIXEL * pixels) for pixels in INPUT_PIXELS)

#: What ONNX Runtime raises for a file that is missing, broken or no network it can run.
UNREADABLE = (
    faults.Fail,
    faults.InvalidArgument,
    faults.InvalidGraph,
    faults.InvalidProtobuf,
    faults.NoSuchFile,
    faults.NotImplemented,
)
#: What it calls running on a GPU. If that is not to be had, it runs on the CPU and says nothing.
ON_CUDA = "CUDAExecutionProvider"
#: It has no type for want of memory, only these words: of its arena, of CUDA, of cuDNN and cuBLAS,
#: and of the CPU.
NO_MEMORY = ("Failed to allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")


class Session(Protocol):
    """Runs a network: the part of ONNX Runtime's ``InferenceSession`` that is used."""

    def get_inputs(self) -> Sequence[Any]:
        """Return the name, the shape and the type of each input."""

    def get_outputs(self) -> Sequence[Any]:
        """Return the name, the shape and the type of each output."""

    def get_providers(self) -> Sequence[str]:
        """Return what it runs on, the preferred first."""

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> Sequence[Floats]:
        """Return the outputs of these names."""


def open_dwpose(path: Path, device: str, *, flip: bool = False) -> DwposeTracker:
    """Load the network from an ONNX file, on the GPU for a CUDA ``device`` if there is a way.

    Raises :class:`ValueError` if the file cannot be read, or holds another network.
    """
    options = onnxruntime.SessionOptions()
    # Only what ends the process: all else is raised, and running out of memory is expected.
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=_providers(device))
    except UNREADABLE as error:
        raise ValueError(f"{path.name} cannot be read as an ONNX network.") from error
    return DwposeTracker(session, flip=flip)


class DwposeTracker:
    """Find the face of the one person that DWPose sees in a picture."""

    def __init__(self, session: Session, *, flip: bool = False) -> None:
        """Take a loaded network; with ``flip``, ask it about the mirrored picture as well.

        That is twice the work for landmarks as steady as the reference's. Raises
        :class:`ValueError` if it is another network.
        """
        (self._input,) = _names(session.get_inputs(), [INPUT])
        self._outputs = _names(session.get_outputs(), OUTPUTS)
        self._one_by_one = isinstance(session.get_inputs()[0].shape[0], int)
        self._session = session
        self._flip = flip

    @property
    def device(self) -> str:
        """Return where the network came to run, ``cuda`` or ``cpu``, whatever was asked for."""
        return "cuda" if ON_CUDA in self._session.get_providers() else "cpu"

    def track(
        self, frames: Iterable[Frame], fps: Fraction, params: Params, batch: Batch
    ) -> Sequence[Box | None]:
        """Return a box for each frame, or None where it shows no face.

        Raises :class:`OutOfMemory` if not even one picture finds room.
        """
        boxes: list[Box | None] = []
        for looks, (points, scores) in batch.run(self._find, map(_look, frames)):
            boxes += [
                _box(look, face, score, params.bbox_shift)
                for look, face, score in zip(looks, points, scores, strict=True)
            ]
        return bridge_gaps(boxes, fps)

    def _find(self, looks: Sequence[_Look]) -> tuple[Landmarks, Floats]:
        """Return the points of each face in pixels of the input, and their scores."""
        inputs = _normalized(np.stack([look.picture for look in looks]))
        x, y = self._logits(inputs)
        if self._flip:
            mirrored_x, mirrored_y = self._logits(np.ascontiguousarray(inputs[..., ::-1]))
            x = np.mean([x, mirrored_x[:, MIRRORED, ::-1]], axis=0)
            y = np.mean([y, mirrored_y[:, MIRRORED]], axis=0)
        return _decode(x[:, FACE], y[:, FACE])

    def _logits(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Return how likely each point is in each column and in each row."""
        parts = np.split(inputs, len(inputs)) if self._one_by_one else [inputs]
        try:
            outputs = [self._session.run(self._outputs, {self._input: part}) for part in parts]
        except (faults.Fail, faults.RuntimeException, faults.EPFail) as error:
            if any(words in str(error) for words in NO_MEMORY):
                raise MemoryExhausted from error
            raise
        x, y = (np.concatenate(axis) for axis in zip(*outputs, strict=True))
        return x, y


def _decode(x: Floats, y: Floats) -> tuple[Landmarks, Floats]:
    """Return points [n, points, 2] in pixels of the input, and scores, of SimCC's two axes.

    A point that scores nothing lies half a pixel outside (MMPose, get_simcc_maximum).
    """
    points = np.stack([x.argmax(axis=-1), y.argmax(axis=-1)], axis=-1) / BINS_PER_PIXEL
    scores = np.minimum(x.max(axis=-1), y.max(axis=-1))
    points[scores <= 0] = -1 / BINS_PER_PIXEL
    return points, scores


@dataclass(frozen=True, slots=True)
class _Look:
    """Hold all of a frame as the network sees it, [384, 288, 3], and the size that it had."""

    picture: Bgr
    width: int
    height: int

    def in_frame(self, points: Landmarks) -> Landmarks:
        """Return points of the input, in pixels of the frame (MMPose, TopdownPoseEstimator)."""
        view = _view(self.width, self.height)
        middle = np.array([self.width, self.height]) / 2
        return np.asarray(points / np.array(INPUT_PIXELS) * view + middle - view / 2)


def _look(frame: Frame) -> _Look:
    """Bring the middle of a frame to the middle of the input; around it is black.

    Its planes are, before they become colours: of a large frame, few pixels are left by then.
    """
    scale = INPUT_PIXELS[0] / float(_view(frame.width, frame.height)[0])
    across, down = (
        (pixels - scale * side) / 2
        for pixels, side in zip(INPUT_PIXELS, (frame.width, frame.height), strict=True)
    )
    fine = np.array([[scale, 0, across], [0, scale, down]])
    # A sample of chroma lies between two of luma.
    coarse = np.array([[2 * scale, 0, across + scale / 2], [0, 2 * scale, down + scale / 2]])
    y, u, v = (
        cv2.warpAffine(plane, matrix, INPUT_PIXELS, flags=cv2.INTER_LINEAR, borderValue=(black,))
        for plane, matrix, black in zip(
            frame.planes, (fine, coarse, coarse), (BLACK, GREY, GREY), strict=True
        )
    )
    picture = cv2.transform(cv2.merge([y, u, v]), frame.matrix.to_bgr)
    return _Look(np.asarray(picture, np.uint8), frame.width, frame.height)


def _view(width: int, height: int) -> Floats:
    """Return width and height of what the input shows: the frame, padded to the input's shape.

    In single precision, as MMPose has it: it tells where a landmark is cut to a whole pixel.
    """
    aspect = INPUT_PIXELS[0] / INPUT_PIXELS[1]
    across, down = np.array([width, height], np.float32) * np.float32(PADDING)
    if across > down * aspect:
        return np.array([across, across / aspect], np.float32)
    return np.array([down * aspect, down], np.float32)


def _normalized(pictures: Bgr) -> Floats:
    """Return pictures [n, h, w, 3] of bytes as the network takes them: [n, 3, h, w], RGB."""
    mean, deviation = np.array(MEAN, np.float32), np.array(DEVIATION, np.float32)
    return np.ascontiguousarray(
        ((pictures[..., ::-1] - mean) / deviation).transpose(0, 3, 1, 2), np.float32
    )


def _box(look: _Look, points: Landmarks, scores: Floats, bbox_shift: int) -> Box | None:
    if scores.mean() < LEAST_SCORE:
        return None
    landmarks = look.in_frame(points)
    visible = visible_box(landmarks, scores > 0, look.width, look.height)
    return face_box(landmarks, visible, bbox_shift)


def _names(found: Sequence[Any], due: Sequence[Sequence[int]]) -> list[str]:
    """Return the names of a network's inputs or outputs.

    Raises :class:`ValueError` if they are not what is due. A dimension that has a name is open.
    """
    if len(found) != len(due) or not all(map(_fits, found, due)):
        shapes = ", ".join(f"{each.type} {each.shape}" for each in found)
        raise ValueError(f"The network is not DWPose for 384x288: {shapes} stands for {[*due]}.")
    return [each.name for each in found]


def _fits(found: Any, due: Sequence[int]) -> bool:
    return (
        found.type == "tensor(float)"
        and len(found.shape) == len(due)
        and all(
            not isinstance(side, int) or side == expected
            for side, expected in zip(found.shape, due, strict=True)
        )
    )


def _providers(device: str) -> list[str | tuple[str, dict[str, str]]]:
    kind, _, index = device.partition(":")
    if kind != "cuda" or ON_CUDA not in onnxruntime.get_available_providers():
        return ["CPUExecutionProvider"]
    cuda = {
        "device_id": index or "0",
        # By default each new size of a batch has all algorithms of all layers tried out.
        "cudnn_conv_algo_search": "HEURISTIC",
        # By default it takes twice what it needs of the memory that other networks share.
        "arena_extend_strategy": "kSameAsRequested",
    }
    return [(ON_CUDA, cuda), "CPUExecutionProvider"]
