"""Where the generated part of a face shows, and how softly it is blended in.

The rules are MuseTalk's (``blending.py``, ``face_parsing/``): a parsing network says what each
pixel of a square around the face is, and from its classes follow the pixels that may be replaced.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from handler.job import ParsingMode
from inference.frame import Box, Plane

#: Side of the square in which the network tells classes apart (``face_parsing/``).
MAP_SIDE_PIXELS = 512
#: Classes of CelebAMask-HQ, by their numbers in the network's output.
SKIN, NOSE, NECK = 1, 10, 14
#: Mouth interior, upper lip, lower lip.
MOUTH = (11, 12, 13)

#: Half the square around a face, as a share of the face's longer side halved (``blending.py``).
EXPANSION = 1.5
#: Share of the square, from its top, that is never replaced (``upper_boundary_ratio``).
UPPER_SHARE = 0.5
#: Extent of the blur, as a share of the square's side. The reference's realtime script has 0.1;
#: here a mask is the same whether it is made for one job or kept for many.
BLUR_SHARE = 0.05
#: A face smaller than this cannot be seen to speak.
SMALLEST_FACE_PIXELS = 8

#: How far a pixel of skin spreads in the jaw mode: up, and as far aside on its way; and down.
SPREAD_UP_PIXELS, SPREAD_ASIDE_PIXELS, SPREAD_DOWN_PIXELS = 16, 10, 6
#: Width and height of the ellipse that the cheeks shrink by, and how often they do.
SHRINK_PIXELS = (35, 3)
SHRINK_TIMES = 2


def square_around(face: Box) -> Box:
    """Return the square that the parsing network sees; it may reach beyond the picture."""
    across, down = (face.left + face.right) // 2, (face.top + face.bottom) // 2
    half = int(max(face.width, face.height) // 2 * EXPANSION)
    return Box(across - half, down - half, across + half, down + half)


def class_mask(classes: Plane, mode: ParsingMode, left: int, right: int) -> Plane:
    """Return where a map of classes allows another face: 0 or 255, of the map's shape [512, 512].

    ``left`` and ``right`` are the widths of what the jaw mode leaves between the cheeks, from the
    middle of the map, in its pixels; the other modes have no use for them.
    """
    match mode:
        case ParsingMode.JAW:
            spread = np.where(classes == NOSE, 0, _spread_skin(classes, left, right))
            return np.asarray(spread | _belonging(classes, *MOUTH), np.uint8)
        case ParsingMode.NECK:
            return _belonging(classes, SKIN, NECK, *MOUTH)
        case ParsingMode.RAW:
            return _belonging(classes, SKIN, *MOUTH)


def _belonging(classes: Plane, *wanted: int) -> Plane:
    """Return where a map shows one of some classes: 0 or 255."""
    table = np.zeros(256, np.uint8)
    table[list(wanted)] = 255
    return np.asarray(cv2.LUT(classes, table), np.uint8)


def _spread_skin(classes: Plane, left: int, right: int) -> Plane:
    """Return the skin grown towards the mouth, but drawn back from the outlines of the cheeks."""
    spread = cv2.dilate(_belonging(classes, SKIN), _spread_kernel())
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, SHRINK_PIXELS)
    cheeks = cv2.erode(spread, ellipse, iterations=SHRINK_TIMES)
    middle = slice(MAP_SIDE_PIXELS // 2 - left + 1, MAP_SIDE_PIXELS // 2 + right)
    cheeks[:, middle] = spread[:, middle]
    return np.asarray(cheeks, np.uint8)


def _spread_kernel() -> Plane:
    """Return where skin lies that reaches a pixel: from it, a triangle, point up, on a block."""
    reach = SPREAD_UP_PIXELS
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    half_width = np.minimum(down + SPREAD_DOWN_PIXELS, SPREAD_ASIDE_PIXELS)
    return np.asarray(np.abs(across) <= half_width, np.uint8)


def face_mask(allowed: Plane, face: Box, width: int, height: int) -> tuple[Box, Plane] | None:
    """Return which part of a picture changes, and the mask on it; None if none does.

    ``allowed`` is what :func:`class_mask` returns for the square around the face. The box lies in
    the picture and is even, as the picture's own sides are; pixels that only made it so have 0.
    """
    if min(face.width, face.height) < SMALLEST_FACE_PIXELS:
        return None
    seen = blend_mask(allowed, face)[
        max(0, -face.top) : max(0, height - face.top),
        max(0, -face.left) : max(0, width - face.left),
    ]
    if not seen.any():
        return None
    left, top, across, down = cv2.boundingRect(seen)
    x, y = max(0, face.left) + left, max(0, face.top) + top
    box = Box(x, y, x + across, y + down).clipped(width, height)
    rows, columns = (y - box.top, box.bottom - y - down), (x - box.left, box.right - x - across)
    return box, np.pad(seen[top : top + down, left : left + across], (rows, columns))


def blend_mask(allowed: Plane, face: Box) -> Plane:
    """Return how much of a generated face shows, 0 to 255: [face height, face width].

    It fades in at the face's middle row and out at its border (``get_image`` in ``blending.py``).
    """
    square = square_around(face)
    side = square.width
    left, top = face.left - square.left, face.top - square.top
    soft = Image.fromarray(allowed).resize((side, side), Image.Resampling.BICUBIC)
    mask = np.array(soft.crop((left, top, left + face.width, top + face.height)))
    mask[: int(side * UPPER_SHARE) - top] = 0
    kernel = int(BLUR_SHARE * side // 2 * 2) + 1
    # The reference blurs the whole square. Around the face it is empty, and wider than the kernel.
    blurred = cv2.GaussianBlur(mask, (kernel, kernel), 0, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred, np.uint8)
