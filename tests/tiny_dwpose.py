"""Make a small stand-in for DWPose's network: the same inputs and outputs, and one fixed face.

It finds the 68 points of a face, all that the tracker reads, at one place in pictures of one shape;
but none in a picture that is black in the middle, so that a film can make the face go and return.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

WIDTH, HEIGHT = 288, 384
#: How widely the logits of a point are spread, in bins of half a pixel, and how high they are.
SPREAD_BINS, PEAK = 6.0, 0.9
#: The first of the 133 points that is of the face.
FIRST = 23

#: Black is -1.99 here, and white 2.43.
GRAPH = """
<ir_version: 8, opset_import: ["": 17]>
tiny_dwpose (float[{batch}, 3, 384, 288] input)
    => (float[{batch}, 133, 576] simcc_x, float[{batch}, 133, 768] simcc_y)
<
    int64[2] upper_left = {{172, 124}}, int64[2] lower_right = {{212, 164}},
    int64[2] axes = {{2, 3}},
    float dark = {{-1.8}}, float steepness = {{5}}, float none = {{0}}, float all = {{1}}
>
{{
    middle = Slice(input, upper_left, lower_right, axes)
    colour = ReduceMean<axes = [2, 3], keepdims = 1>(middle)
    light = ReduceMean<axes = [1], keepdims = 0>(colour)
    above = Sub(light, dark)
    steep = Mul(above, steepness)
    gate = Clip(steep, none, all)
    simcc_x = Mul(gate, x)
    simcc_y = Mul(gate, y)
}}
"""


def write_tiny_dwpose(
    path: Path,
    face: tuple[float, float, float],
    frame: tuple[int, int] = (512, 512),
    batch: int | str = "N",
) -> Path:
    """Write a network that sees one face (see :func:`face_points`) in frames of that shape.

    ``batch`` is how many pictures it takes at once, or the name for any number.
    """
    shown = 1.25 * max(frame[0], frame[1] * WIDTH / HEIGHT)
    points = (face_points(face, frame) - np.array(frame) / 2) * WIDTH / shown
    points += WIDTH / 2, HEIGHT / 2
    model = parser.parse_model(GRAPH.format(batch=batch))
    for axis, (name, pixels) in enumerate({"x": WIDTH, "y": HEIGHT}.items()):
        logits = np.zeros((133, 2 * pixels), np.float32)
        away = np.arange(2 * pixels) - 2 * points[:, axis, None]
        logits[FIRST : FIRST + 68] = PEAK * np.exp(-((away / SPREAD_BINS) ** 2) / 2)
        model.graph.initializer.append(numpy_helper.from_array(logits, name))
    onnx.save(model, f"{path}")
    return path


def face_points(face: tuple[float, float, float], frame: tuple[int, int]) -> NDArray[np.float64]:
    """Return 68 points in pixels of the frame, in the order of iBUG-68.

    ``face`` is where the bridge of the nose is, across and down, and the width of the jaw: shares
    of the frame's width, height and width. The chin is 0.65 such widths below the bridge.
    """
    jaw = -np.pi * np.arange(17) / 16
    brow = np.linspace(-0.4, -0.1, 5)
    arch = np.array([-0.28, -0.33, -0.35, -0.33, -0.30])
    points = [
        np.stack([-np.cos(jaw) / 2, -0.05 - 0.7 * np.sin(jaw)], axis=1),
        np.stack([brow, arch], axis=1),
        np.stack([-brow[::-1], arch[::-1]], axis=1),
        np.stack([np.zeros(4), np.linspace(-0.24, 0.12, 4)], axis=1),
        np.stack([np.linspace(-0.12, 0.12, 5), np.full(5, 0.2)], axis=1),
        *(_ring(6, across, -0.18, 0.09) for across in (-0.22, 0.22)),
        _ring(12, 0, 0.4, 0.2),
        _ring(8, 0, 0.4, 0.14),
    ]
    middle, width = np.multiply(face[:2], frame), face[2] * frame[0]
    return np.asarray(middle + width * np.concatenate(points))


def _ring(count: int, across: float, down: float, radius: float) -> NDArray[np.float64]:
    """Return points on a flat ring, from the left over the top."""
    angles = np.pi - 2 * np.pi * np.arange(count) / count
    return np.stack(
        [across + radius * np.cos(angles), down - 0.4 * radius * np.sin(angles)], axis=1
    )
