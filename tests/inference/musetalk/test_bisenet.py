"""Face parsing: the reference's network, known by its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference.matrix import Bgr
from inference.musetalk.bisenet import BiSeNet, normalised, parse_picture
from tests.weights_recipe import fill

#: Made by the reference implementation with the weights of ``tests/weights_recipe.py``.
GOLDEN = Path(__file__).parents[2] / "golden" / "parsing.npz"
#: Every how many pixels it holds the scores of the classes.
STRIDE = 32
#: How far an equal implementation may be from it, as a share of the largest score.
LARGEST_DIFFERENCE = 1e-4
#: Share of pixels that two classes may be so close at that rounding decides.
LARGEST_SHARE = 0.001


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def network() -> BiSeNet:
    return fill(BiSeNet())


@pytest.fixture(scope="module")
def images(golden: dict[str, NDArray[Any]]) -> torch.Tensor:
    """Return the golden picture as a batch of one."""
    return read(golden["image_bgr"])


@pytest.fixture(scope="module")
def scores(network: BiSeNet, images: torch.Tensor) -> torch.Tensor:
    return network.logits(images)


@pytest.fixture(scope="module")
def classes(network: BiSeNet, images: torch.Tensor) -> torch.Tensor:
    return network(images)


def read(square: Bgr) -> torch.Tensor:
    """Return one picture as the network reads it."""
    return normalised(torch.from_numpy(np.stack([parse_picture(square)])))


def test_scores_are_the_references(scores: torch.Tensor, golden: dict[str, NDArray[Any]]) -> None:
    found = scores[0, :, ::STRIDE, ::STRIDE].numpy()

    due = golden["logits_stride32"]
    assert np.abs(found - due).max() < LARGEST_DIFFERENCE * np.abs(due).max()


def test_classes_are_the_references(classes: torch.Tensor, golden: dict[str, NDArray[Any]]) -> None:
    assert classes.dtype == torch.uint8
    assert np.mean(classes[0].numpy() != golden["classes"]) <= LARGEST_SHARE


def test_each_picture_of_a_batch_is_parsed_by_itself(
    network: BiSeNet, images: torch.Tensor, classes: torch.Tensor
) -> None:
    together = network(torch.cat([images.flip(-1), images]))

    assert together.shape == (2, 512, 512)
    assert (together[1] != classes[0]).float().mean() <= LARGEST_SHARE
    assert (together[0] != together[1]).float().mean() > LARGEST_SHARE


def test_other_weights_give_other_finite_scores(images: torch.Tensor, scores: torch.Tensor) -> None:
    others = fill(BiSeNet(), seed=11).logits(images)

    assert others.isfinite().all()
    assert (others - scores).abs().max() > 0.1
    assert len(others.argmax(1).unique()) > 1


def test_the_published_checkpoint_fits_with_its_auxiliary_heads() -> None:
    names = BiSeNet().state_dict().keys()

    assert len(names) == 191
    assert {
        "cp.resnet.layer2.0.downsample.1.running_mean",
        "cp.arm16.bn_atten.weight",
        "ffm.convblk.conv.weight",
        "conv_out16.conv_out.weight",
        "conv_out32.conv.bn.bias",
    } <= names


def test_auxiliary_heads_have_no_part_in_the_classes(
    images: torch.Tensor, classes: torch.Tensor
) -> None:
    without = fill(BiSeNet())
    for head in (without.conv_out16, without.conv_out32):
        for values in head.parameters():
            values.fill_(torch.nan)

    assert torch.equal(without(images), classes)


def test_a_picture_is_read_red_first_and_normalised_as_imagenet_is() -> None:
    blue = np.zeros((40, 40, 3), np.uint8)
    blue[..., 0] = 255

    (values,) = read(blue).numpy()

    assert values.shape == (3, 512, 512)
    assert values.dtype == np.float32
    assert values[:, 0, 0] == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, 0.594 / 0.225])
    assert (values == values[:, :1, :1]).all()


def test_a_larger_picture_is_averaged_not_sampled() -> None:
    stripes = np.zeros((2048, 2048, 3), np.uint8)
    stripes[:, ::4] = 255

    inner = parse_picture(stripes)[8:-8, 8:-8]

    assert inner.min() == pytest.approx(255 / 4, abs=4)
    assert inner.max() == pytest.approx(255 / 4, abs=4)
