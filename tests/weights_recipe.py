"""Random weights that are the same wherever they are made.

A tensor follows from its name, its shape and a seed, and from nothing else. A network whose state
dict has the published names and shapes is therefore filled with the very numbers with which the
reference implementation made the golden files.
"""

from __future__ import annotations

import math
import zlib
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Network = TypeVar("Network", bound=torch.nn.Module)

#: The seed of the golden files.
GOLDEN_SEED = 7


def fill(network: Network, seed: int = GOLDEN_SEED) -> Network:
    """Give a network random weights, in place, and set it to inference."""
    state = network.state_dict()
    for name, old in state.items():
        if old.is_floating_point():
            values = values_of(name, tuple(old.shape), seed)
            state[name] = torch.from_numpy(values).to(old.dtype)
    network.load_state_dict(state)
    return network.eval().requires_grad_(requires_grad=False)


def values_of(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return a tensor's values, scaled so that signals neither vanish nor grow."""
    chance = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = chance.standard_normal(shape)
    if name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(noise)
    elif name.endswith("running_mean"):
        values = 0.1 * noise
    elif name.endswith("bias"):
        values = 0.05 * noise
    elif len(shape) <= 1:
        # The scale of a normalisation.
        values = 1 + 0.1 * noise
    else:
        values = noise / math.sqrt(math.prod(shape[1:]))
    return values.astype(np.float32)
