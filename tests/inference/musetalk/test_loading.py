"""Weights from any file they come in, and from no other; devices that are there, and no other."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from handler.job import Params
from inference.batching import Batch
from inference.frame import Frame
from inference.matrix import Matrix, planes_of
from inference.mouth import Shot
from inference.musetalk.bisenet import BiSeNet
from inference.musetalk.device import Device
from inference.musetalk.models import Networks, fold_time, read_networks
from inference.musetalk.parts import musetalk_parts, read_musetalk
from inference.weights import (
    FETCH_COMMAND,
    VERIFY_COMMAND,
    WeightsError,
    WeightsMissing,
    weights_identity,
)
from tests.tiny_musetalk import tiny_unet, tiny_vae, tiny_whisper, write_tiny_musetalk
from tests.weights_recipe import fill

PORTRAIT = Path(__file__).parents[2] / "golden" / "frame.png"
#: With this one the face parser takes most of the portrait for skin.
SEED = 130
CPU = Device.choose("cpu")

UNET, UNET_JSON = "musetalkV15/unet.pth", "musetalkV15/musetalk.json"
VAE, VAE_JSON = "sd-vae/diffusion_pytorch_model.bin", "sd-vae/config.json"
WHISPER, WHISPER_JSON = "whisper/pytorch_model.bin", "whisper/config.json"
BISENET = "face-parse-bisent/79999_iter.pth"
DWPOSE = "dwpose/dw-ll_ucoco_384.onnx"
PUBLISHED = (UNET, VAE, WHISPER, BISENET)
CONVERTED = {
    UNET: "musetalkV15/unet.safetensors",
    VAE: "sd-vae/diffusion_pytorch_model.safetensors",
    WHISPER: "whisper/model.safetensors",
    BISENET: "face-parse-bisent/79999_iter.safetensors",
}
#: What the attention of the published VAE is called.
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
#: No user reads a page of names.
LONGEST_MESSAGE = 500

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Shelf:
    """A weights directory that can be spoiled: its files are links to others."""

    place: Path

    def tensors(self, path: str) -> Tensors:
        return dict(torch.load(self.place / path, weights_only=True))

    def write(self, path: str, content: bytes) -> None:
        """Put a file in another's place."""
        (self.place / path).unlink()
        (self.place / path).write_bytes(content)

    def save(self, path: str, content: Any, *, archive: bool = True) -> None:
        """Save as PyTorch does, or as it did before 1.6."""
        (self.place / path).unlink()
        torch.save(content, self.place / path, _use_new_zipfile_serialization=archive)

    def cut(self, path: str, share: float) -> None:
        """Leave a file's beginning."""
        content = (self.place / path).read_bytes()
        self.write(path, content[: int(len(content) * share)])

    def convert(self, path: str, tensors: Tensors) -> None:
        """Save as safetensors."""
        save_file(tensors, self.place / CONVERTED[path])

    def configure(self, path: str, **words: Any) -> None:
        """Change a configuration."""
        old = json.loads((self.place / path).read_text(encoding="utf-8"))
        self.write(path, json.dumps(old | words).encode())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny MuseTalk's weights as they are published."""
    return write_tiny_musetalk(tmp_path_factory.mktemp("weights") / "tiny", seed=SEED)


@pytest.fixture(scope="module")
def due() -> Networks:
    """Return the networks that are in these files."""
    unet = tiny_unet(SEED)
    fold_time(unet)
    return Networks(unet, tiny_vae(SEED), tiny_whisper(SEED).encoder, fill(BiSeNet(), SEED))


@pytest.fixture
def shelf(published: Path, tmp_path: Path) -> Shelf:
    return Shelf(Path(shutil.copytree(published, tmp_path / "tiny", copy_function=os.link)))


def assert_alike(found: Networks, due: Networks, tolerance: float = 0) -> None:
    """Compare all parameters of all networks."""
    for name in ("unet", "vae", "whisper", "parser"):
        one, other = (getattr(each, name).state_dict() for each in (found, due))
        assert one.keys() == other.keys()
        for key, tensor in other.items():
            assert torch.allclose(one[key].float(), tensor.float(), rtol=0, atol=tolerance), key


def modules(networks: Networks) -> list[nn.Module]:
    return [networks.unet, networks.vae, networks.whisper, networks.parser]


def test_published_files_are_read_as_they_are(published: Path, due: Networks) -> None:
    found = read_networks(published)

    assert_alike(found, due)
    assert not any(network.training for network in modules(found))
    assert not any(tensor.requires_grad for each in modules(found) for tensor in each.parameters())


def test_files_of_before_pytorch_1_6_are_read_as_well(shelf: Shelf, due: Networks) -> None:
    for path in PUBLISHED:
        shelf.save(path, shelf.tensors(path), archive=False)

    assert_alike(read_networks(shelf.place), due)


def test_a_vae_may_call_its_attention_as_it_was_called_when_it_was_published(
    shelf: Shelf, due: Networks
) -> None:
    tensors = shelf.tensors(VAE)
    for today, then in OLD_NAMES.items():
        tensors = {
            name.replace(f".{today}.", f".{then}."): tensor for name, tensor in tensors.items()
        }
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in tensors
    shelf.save(VAE, tensors)

    assert_alike(read_networks(shelf.place), due)


@pytest.mark.parametrize("prefix", ["model.encoder.", "encoder."])
def test_of_whisper_the_encoder_is_taken_from_whatever_holds_it(
    prefix: str, shelf: Shelf, due: Networks
) -> None:
    tensors = tiny_whisper(SEED).encoder.state_dict()
    renamed = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    shelf.save(WHISPER, renamed | {"proj_out.weight": torch.ones(1)})

    assert_alike(read_networks(shelf.place), due)


def test_converted_files_serve_alone_and_in_the_precision_of_the_device(
    shelf: Shelf, due: Networks
) -> None:
    for path in PUBLISHED:
        precision = torch.float32 if path == BISENET else torch.float16
        tensors = {
            name: tensor.to(precision) if tensor.is_floating_point() else tensor
            for name, tensor in shelf.tensors(path).items()
        }
        shelf.convert(path, tensors)
        (shelf.place / path).unlink()

    found = read_networks(shelf.place)
    found.move(CPU)

    assert_alike(found, due, tolerance=2e-3)
    assert precisions(found) == [{torch.float32}] * 4


def test_a_converted_file_is_preferred_to_the_published(shelf: Shelf) -> None:
    shelf.convert(VAE, {name: tensor * 0 for name, tensor in shelf.tensors(VAE).items()})

    vae = read_networks(shelf.place).vae

    assert not any(tensor.any() for tensor in vae.parameters())


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_faces_are_parsed_in_single_precision_on_any_device(
    precision: str, published: Path
) -> None:
    found = read_networks(published)

    found.move(Device.choose("cpu", precision))

    half = getattr(torch, precision)
    assert precisions(found) == [{half}, {half}, {half}, {torch.float32}]


def precisions(networks: Networks) -> list[set[torch.dtype]]:
    return [{tensor.dtype for tensor in network.parameters()} for network in modules(networks)]


@dataclass(frozen=True)
class Fault:
    """A way to spoil a weights directory, and the file that is then to blame."""

    name: str
    spoil: Callable[[Shelf], None]
    blamed: str


def swap(shelf: Shelf) -> None:
    """Confuse two files."""
    unet, vae = ((shelf.place / path).read_bytes() for path in (UNET, VAE))
    shelf.write(UNET, vae)
    shelf.write(VAE, unet)


FAULTS = (
    Fault("nothing in it", lambda shelf: shelf.cut(UNET, 0), UNET),
    Fault("its beginning only", lambda shelf: shelf.cut(UNET, 0.5), UNET),
    Fault("all but its end", lambda shelf: shelf.cut(BISENET, 0.9999), BISENET),
    Fault("a web page", lambda shelf: shelf.write(WHISPER, b"<!DOCTYPE html><p>Sign in"), WHISPER),
    Fault("a pointer", lambda shelf: shelf.write(VAE, b"version https://git-lfs.github"), VAE),
    Fault("another network", swap, UNET),
    Fault("a list", lambda shelf: shelf.save(UNET, [torch.ones(2)]), UNET),
    Fault("a table", lambda shelf: shelf.save(VAE, torch.ones(3, 2)), VAE),
    Fault("numbers for names", lambda shelf: shelf.save(VAE, {1: torch.ones(2)}), VAE),
    Fault("a module", lambda shelf: shelf.save(BISENET, nn.Linear(2, 2)), BISENET),
    Fault(
        "a training state",
        lambda shelf: shelf.save(UNET, {"epoch": 3, "state_dict": shelf.tensors(UNET)}),
        UNET,
    ),
    Fault(
        "a shape too many",
        lambda shelf: shelf.configure(VAE_JSON, block_out_channels=[32, 32, 64, 128]),
        VAE,
    ),
    Fault("wider", lambda shelf: shelf.configure(WHISPER_JSON, d_model=96), WHISPER),
    Fault("no heads", lambda shelf: shelf.configure(UNET_JSON, attention_head_dim=0), UNET),
    Fault("no configuration", lambda shelf: (shelf.place / VAE_JSON).unlink(), VAE_JSON),
    Fault("half of one", lambda shelf: shelf.cut(WHISPER_JSON, 0.5), WHISPER_JSON),
    Fault("an empty one", lambda shelf: shelf.write(UNET_JSON, b""), UNET_JSON),
    Fault("a word for one", lambda shelf: shelf.write(VAE_JSON, b'"sd-vae"'), VAE_JSON),
    Fault("null for one", lambda shelf: shelf.write(WHISPER_JSON, b"null"), WHISPER_JSON),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_cannot_be_read_is_named_with_the_command_that_mends_it(
    fault: Fault, shelf: Shelf
) -> None:
    fault.spoil(shelf)

    with pytest.raises(WeightsError) as failure:
        read_networks(shelf.place)

    message = str(failure.value)
    assert str(shelf.place / fault.blamed) in message
    assert VERIFY_COMMAND in message
    assert FETCH_COMMAND in message
    assert len(message) - len(str(shelf.place)) < LONGEST_MESSAGE
    assert "\n" not in message


@pytest.mark.parametrize("length", [20, 100, 1000, 3000, 8000, 50_000])
def test_a_file_of_before_pytorch_1_6_may_be_cut_off_anywhere(length: int, shelf: Shelf) -> None:
    shelf.save(VAE, shelf.tensors(VAE), archive=False)
    content = (shelf.place / VAE).read_bytes()
    shelf.write(VAE, content[:length])

    with pytest.raises(WeightsError, match=r"diffusion_pytorch_model\.bin cannot be used"):
        read_networks(shelf.place)


class Intruder:
    """Makes a directory where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("age", ["old", "new"])
def test_code_in_a_file_does_not_run_and_nobody_is_advised_to_let_it(
    age: str, shelf: Shelf, tmp_path: Path
) -> None:
    broken_in = tmp_path / "broken_in"
    shelf.save(BISENET, {"cp.weight": Intruder(broken_in)}, archive=age == "new")

    with pytest.raises(WeightsError, match=r"79999_iter\.pth cannot be used") as failure:
        read_networks(shelf.place)

    assert not broken_in.exists()
    assert "weights_only" not in str(failure.value)
    # The file would have done it.
    pickle.loads(pickle.dumps(Intruder(broken_in)))
    assert broken_in.exists()


@pytest.mark.parametrize("path", [*PUBLISHED, DWPOSE])
def test_a_missing_file_is_named_before_anything_is_read(path: str, shelf: Shelf) -> None:
    (shelf.place / path).unlink()

    with pytest.raises(WeightsMissing, match=f"lacks .*{Path(path).name}: run `{FETCH_COMMAND}`"):
        read_musetalk(shelf.place)


def test_a_tracker_that_is_none_is_named(shelf: Shelf) -> None:
    shelf.write(DWPOSE, b"not a graph")

    with pytest.raises(WeightsError, match=r"dw-ll_ucoco_384\.onnx cannot be used"):
        musetalk_parts(read_musetalk(shelf.place), CPU, batch_size=2)


def test_the_parts_of_musetalk_find_a_face_and_move_its_lips(published: Path) -> None:
    parts = musetalk_parts(read_musetalk(published), CPU, batch_size=2)
    picture = np.asarray(cv2.imread(str(PORTRAIT)), np.uint8)
    buffer = np.concatenate([plane.ravel() for plane in planes_of(picture, Matrix.BT601)])
    frame, batch, fps = Frame(buffer, 512, 512), Batch(parts.batch_size), Fraction(25)

    faces = parts.tracker.track([frame], fps, Params(), batch)
    (place,) = parts.maker.make(faces, [frame], (512, 512), Params(), batch)
    (cue,) = parts.mouth.listen([np.zeros(640, np.float32)], fps, 1)
    ((_, lips),) = parts.mouth.speak([Shot(frame, place, cue)], batch)

    assert place is not None
    assert lips is not None
    assert lips.y.shape == (place.box.height, place.box.width)
    assert (parts.name, parts.precision, parts.device) == ("musetalk", "float32", "cpu")
    assert parts.weights == weights_identity(published)
    assert parts.memory is not None
    assert parts.memory.peak_mib() is None


def test_a_worker_without_a_gpu_uses_its_cpu_in_single_precision() -> None:
    chosen = Device.choose("cpu")

    assert (chosen.place.type, chosen.dtype, chosen.name) == ("cpu", torch.float32, "cpu")
    if not torch.cuda.is_available():
        assert Device.choose() == chosen


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_was_asked_for_is_not_replaced_by_the_cpu() -> None:
    with pytest.raises(ValueError, match="cuda was asked for, and there are 0 CUDA devices"):
        Device.choose("cuda", "float16")


def test_a_gpu_beyond_those_there_are_is_not_there() -> None:
    with pytest.raises(ValueError, match="cuda:99 was asked for"):
        Device.choose("cuda:99")
