"""Slimmer weights: the same numbers in half precision, under the names of today."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inference.musetalk.conversion import convert_weights
from inference.weights import (
    Network,
    Verdict,
    WeightsError,
    WeightsFile,
    find_weights,
    verify_weights,
    weights_identity,
)
from tests.hub import published

ROOT = Path(__file__).parents[3]

Tensors = dict[str, torch.Tensor]


def random(*names: str) -> Tensors:
    """Return random numbers under each name."""
    return {name: torch.randn(4, 3) for name in names}


def saved(tensors: Tensors, *, archive: bool = True) -> bytes:
    """Return tensors as PyTorch writes them to a file, or wrote them once."""
    buffer = BytesIO()
    torch.save(tensors, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


@dataclass(frozen=True)
class Shop:
    """A directory of published files, and what is made of it."""

    source: Path
    target: Path

    def publish(self, network: Network, content: bytes) -> WeightsFile:
        """Put a network's file there; return how it is listed."""
        (self.source / f"{network}.bin").write_bytes(content)
        return published(
            f"{network}.bin", content, network=network, converted=f"{network}/slim.safetensors"
        )

    def convert(self, *listing: WeightsFile) -> Sequence[Tensors]:
        """Convert all that is listed; return the tensors of each."""
        convert_weights(self.source, self.target, lambda _: None, listing)
        return [load_file(self.target / str(file.converted)) for file in listing]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Open a shop without files."""
    (tmp_path / "published").mkdir()
    return Shop(tmp_path / "published", tmp_path / "slim")


def test_the_unet_is_halved_and_nothing_else(shop: Shop) -> None:
    tensors = random("conv_in.weight", "mid_block.attentions.0.to_q.weight")
    tensors["steps"] = torch.tensor([2**40])
    unet = shop.publish(Network.UNET, saved(tensors))

    (slim,) = shop.convert(unet)

    assert slim.keys() == tensors.keys()
    assert torch.equal(slim["conv_in.weight"], tensors["conv_in.weight"].half())
    # Counts are no measurements.
    assert torch.equal(slim["steps"], tensors["steps"])


def test_the_attention_of_the_vae_gets_the_names_of_today(shop: Shop) -> None:
    old = "decoder.mid_block.attentions.0"
    names = [f"{old}.{part}.weight" for part in ("query", "key", "value", "proj_attn")]
    tensors = random("decoder.conv_in.weight", *names)
    vae = shop.publish(Network.VAE, saved(tensors))

    (slim,) = shop.convert(vae)

    today = [f"{old}.{part}.weight" for part in ("to_q", "to_k", "to_v", "to_out.0")]
    assert slim.keys() == {"decoder.conv_in.weight", *today}
    for before, after in zip(names, today, strict=True):
        assert torch.equal(slim[after], tensors[before].half())


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_of_whisper_the_encoder_is_left(shop: Shop, prefix: str) -> None:
    tensors = random(f"{prefix}encoder.conv1.weight", f"{prefix}decoder.embed_tokens.weight")
    whisper = shop.publish(Network.WHISPER, saved(tensors))

    (slim,) = shop.convert(whisper)

    assert slim.keys() == {"encoder.conv1.weight"}
    assert torch.equal(
        slim["encoder.conv1.weight"], tensors[f"{prefix}encoder.conv1.weight"].half()
    )


def test_face_parsing_keeps_its_precision_even_from_a_file_of_old(shop: Shop) -> None:
    weight = torch.randn(6, 4)
    # Views of one memory, as PyTorch stores them and safetensors does not.
    tensors = {"cp.weight": weight[:, :2], "cp.again": weight, "cp.turned": weight.T}
    bisenet = shop.publish(Network.BISENET, saved(tensors, archive=False))

    (slim,) = shop.convert(bisenet)

    assert slim.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert slim[name].dtype is torch.float32
        assert torch.equal(slim[name], tensor)


def test_a_converted_directory_is_whole_preferred_and_right(shop: Shop) -> None:
    unet = shop.publish(Network.UNET, saved(random("weight")))
    (shop.source / "dwpose.onnx").write_bytes(b"graph")
    (shop.source / "config.json").write_bytes(b"{}")
    listing = [
        unet,
        published("dwpose.onnx", b"graph", network=Network.DWPOSE),
        published("config.json", b"{}"),
    ]
    made: list[str] = []

    convert_weights(shop.source, shop.target, made.append, listing)

    findings = verify_weights(shop.target, listing)
    assert made == ["unet/slim.safetensors", "dwpose.onnx", "config.json"]
    assert {finding.verdict for finding in findings} == {Verdict.OK}
    # So that a start need not read them whole.
    assert all(finding.pin and finding.pin.mtime_ns for finding in findings)
    assert find_weights(shop.target, Network.UNET, listing) == shop.target / made[0]
    assert (shop.target / "dwpose.onnx").read_bytes() == b"graph"
    assert weights_identity(shop.target, listing) != weights_identity(shop.source, listing)
    # Another user may run the worker.
    assert {path.stat().st_mode & 0o044 for path in shop.target.rglob("*.*")} == {0o044}
    assert not list(shop.target.glob(".*"))


def test_the_same_weights_convert_to_the_same_bytes(shop: Shop) -> None:
    unet = shop.publish(Network.UNET, saved(random("b", "a", "c")))

    shop.convert(unet)
    first = weights_identity(shop.target, [unet])
    shop.convert(unet)

    assert weights_identity(shop.target, [unet]) == first


def test_a_changed_converted_file_is_found_out(shop: Shop) -> None:
    unet = shop.publish(Network.UNET, saved(random("weight")))
    shop.convert(unet)
    slim = shop.target / "unet/slim.safetensors"
    slim.write_bytes(slim.read_bytes()[:-1] + b"\x7f")

    assert verify_weights(shop.target, [unet])[0].verdict is Verdict.WRONG_CHECKSUM


def without_file(shop: Shop, unet: WeightsFile) -> WeightsFile:
    """Lose the published file."""
    (shop.source / unet.path).unlink()
    return unet


def with_another(shop: Shop, unet: WeightsFile) -> WeightsFile:
    """Have a file that was never published."""
    (shop.source / unet.path).write_bytes(saved(random("weight", "another")))
    return unet


def damaged(shop: Shop, unet: WeightsFile) -> WeightsFile:
    """Have a file of which nothing is known, and that cannot be read."""
    (shop.source / unet.path).write_bytes(b"not tensors")
    return replace(unet, size_bytes=None, sha256=None)


@pytest.mark.parametrize("spoil", [without_file, with_another, damaged])
def test_what_is_not_as_published_is_not_converted(
    shop: Shop, spoil: Callable[[Shop, WeightsFile], WeightsFile]
) -> None:
    unet = spoil(shop, shop.publish(Network.UNET, saved(random("weight"))))

    with pytest.raises(WeightsError, match=r"unet\.bin"):
        shop.convert(unet)

    assert list(shop.target.iterdir()) == []


def test_the_script_says_what_it_lacks(tmp_path: Path) -> None:
    words = [sys.executable, "build/convert_weights.py", str(tmp_path), str(tmp_path / "slim")]

    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "lacks musetalkV15/unet.pth" in done.stderr
    assert "Traceback" not in done.stderr
