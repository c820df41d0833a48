"""What MuseTalk learns of a face, once for each frame of the source: its latents and its mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from handler.job import Params
from inference.avatar import AvatarFrame
from inference.batching import Batch
from inference.faces.box import crop_box
from inference.frame import Box, Frame
from inference.masks import class_mask, face_mask, square_around
from inference.matrix import Bgr
from inference.musetalk.bisenet import normalised, parse_picture
from inference.musetalk.device import Device, padded, working
from inference.musetalk.models import Networks, scaling
from inference.pipeline import one_behind

#: Side of the square that the VAE encodes, in pixels (MuseTalk, ``vae.py``).
FACE_SIDE_PIXELS = 256
#: The picture that the networks are warmed up with.
BLANK = (FACE_SIDE_PIXELS, FACE_SIDE_PIXELS)


@dataclass(frozen=True, slots=True)
class Look:
    """Hold what the networks see of one face: [256, 256, 3] of it, [512, 512, 3] around it."""

    face: Box
    crop: Bgr
    surroundings: Bgr


Pair = tuple[Box | None, Frame]
Read = tuple[NDArray[np.float32], NDArray[np.uint8]]


class FaceReader:
    """Encode and parse faces, many at once."""

    def __init__(self, networks: Networks, device: Device) -> None:
        """Read with networks that are on the device already."""
        self._vae, self._parser = networks.vae, networks.parser
        self._device = device

    def warm_up(self, batch_size: int) -> None:
        """Run both networks once on blanks, so that the first job does not wait for kernels."""
        frame = Frame(np.zeros(Frame.size_bytes(*BLANK), np.uint8), *BLANK)
        face = Box(0, 0, *BLANK)
        faces, frames = [face] * batch_size, [frame] * batch_size
        list(self.make(faces, frames, BLANK, Params(), Batch(batch_size)))

    def make(
        self,
        faces: Sequence[Box | None],
        frames: Iterable[Frame],
        size: tuple[int, int],
        params: Params,
        batch: Batch,
    ) -> Iterator[AvatarFrame | None]:
        """Yield a record for each face; one batch is in the networks while masks are drawn."""
        boxes = (face and crop_box(face, params.extra_margin, *size) for face in faces)
        with ThreadPoolExecutor() as pool:
            start = partial(self._start, pool, batch)
            for looks, read in one_behind(batch.run(start, zip(boxes, frames, strict=False))):
                seen = [face for face, _ in looks if face is not None]
                drawn = pool.map(partial(_record, size, params), seen, *read())
                for face, _ in looks:
                    yield None if face is None else next(drawn)

    def _start(
        self, pool: ThreadPoolExecutor, batch: Batch, pairs: Sequence[Pair]
    ) -> Callable[[], Read]:
        """Begin to read faces; the returned function waits for latents and classes."""
        looks = list(pool.map(_look, (pair for pair in pairs if pair[0] is not None)))
        if not looks:
            return lambda: (np.empty(0, np.float32), np.empty(0, np.uint8))
        device, count = self._device, len(looks)
        with working(), torch.inference_mode():
            crops = padded(device.send([look.crop for look in looks]), device, batch.size)
            latents = device.receive(self.encode(crops)[:count])
            around = padded(device.send([look.surroundings for look in looks]), device, batch.size)
            classes = device.receive(self._parser(normalised(around))[:count])
        return lambda: (latents(), classes())

    def encode(self, crops_bgr: torch.Tensor) -> torch.Tensor:
        """Return latents [n, 8, 32, 32] of faces, uint8 [n, 256, 256, 3]: half hidden, then whole.

        The posterior's mean, as MuseTalk was trained on; its inference script draws a sample from
        it, and so no two runs agree (``vae.py``).
        """
        rgb = crops_bgr.flip(3).permute(0, 3, 1, 2).float() / 255
        hidden = rgb.clone()
        hidden[:, :, FACE_SIDE_PIXELS // 2 :] = 0
        pictures = (torch.cat([hidden, rgb]) - 0.5) / 0.5
        pictures = pictures.to(self._device.dtype, memory_format=self._device.layout)
        mean = self._vae.encode(pictures, return_dict=False)[0].mean
        latents = torch.cat((mean * scaling(self._vae)).chunk(2), dim=1)
        # NumPy knows no bfloat16.
        return latents.float() if latents.dtype is torch.bfloat16 else latents


def _look(pair: tuple[Box, Frame]) -> Look:
    face, frame = pair
    side = (FACE_SIDE_PIXELS, FACE_SIDE_PIXELS)
    crop = cv2.resize(frame.bgr(face), side, interpolation=cv2.INTER_LANCZOS4)
    return Look(face, np.asarray(crop, np.uint8), parse_picture(frame.bgr(square_around(face))))


def _record(
    size: tuple[int, int],
    params: Params,
    face: Box,
    latents: NDArray[np.float32],
    classes: NDArray[np.uint8],
) -> AvatarFrame | None:
    allowed = class_mask(
        classes, params.parsing_mode, params.left_cheek_width, params.right_cheek_width
    )
    place = face_mask(allowed, face, *size)
    if place is None:
        return None
    box, mask = place
    return AvatarFrame(box, cv2.imencode(".png", mask)[1].tobytes(), face, latents)
