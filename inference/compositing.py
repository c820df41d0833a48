"""Put a face into a frame: one copy of the frame, an exact integer blend, nothing else touched."""

from __future__ import annotations

import cv2
import numpy as np

from inference.frame import Box, Frame, Plane, Planes


def paste(frame: Frame, face: Planes, box: Box, mask: Plane) -> Frame:
    """Return the frame with a face blended in; ``mask`` is [box height, box width], 0 to 255.

    Pixels where the mask is 0, and all outside the box, are those of the frame.
    """
    result = frame.copy()
    coarse = cv2.resize(mask, (box.width // 2, box.height // 2), interpolation=cv2.INTER_AREA)
    masks = (mask, coarse, coarse)
    for below, above, share in zip(result.crop(box), face, masks, strict=True):
        below[:] = blend(below, above, np.asarray(share, np.uint8))
    return result


def blend(below: Plane, above: Plane, mask: Plane) -> Plane:
    """Mix two pictures by a mask of 0 to 255, rounding to nearest in integers.

    ``floor((below * (255 - mask) + above * mask) / 255 + 1/2)``, by the shifts with which Pillow
    pastes with a mask (``Paste.c``, ``MULDIV255``). Every term fits 16 bits.
    """
    share = mask.astype(np.uint16)
    total = below * (255 - share) + above * share + np.uint16(128)
    return ((total + (total >> 8)) >> 8).astype(np.uint8)
