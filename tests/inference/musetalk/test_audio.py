"""What a voice asks of a mouth: the reference's numbers, at any rate, however the sound arrives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import count, cycle
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from inference.musetalk.audio import features, log_mel, position_code, windows
from inference.musetalk.device import Device
from inference.timeline import voice_frames
from tests.tiny_musetalk import golden_meta, tiny_whisper
from tests.weights_recipe import fill

#: Made by the reference implementation with the weights of ``tests/weights_recipe.py``.
GOLDEN = Path(__file__).parents[2] / "golden" / "audio.npz"
#: How far an equal implementation may be from it, as a share of the largest value.
LARGEST_DIFFERENCE = 1e-4
CPU = Device.choose("cpu")

SECOND = 16_000
HALF_MINUTE = 30 * SECOND
#: The rates of films, of screens, and of those who save frames.
RATES = (
    Fraction(1),
    Fraction(10),
    Fraction(12),
    Fraction(24000, 1001),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(48),
    Fraction(50),
    Fraction(60000, 1001),
    Fraction(60),
)
LAYERS, WINDOW, TOKENS, CHANNELS = 5, 10, 50, 384

Arrays = dict[str, NDArray[Any]]
Sound = NDArray[np.float32]


@pytest.fixture(scope="module")
def golden() -> Arrays:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    return tiny_whisper().encoder


@pytest.fixture(scope="module")
def narrow() -> WhisperEncoder:
    """Return a network of few channels, for what does not depend on them."""
    few = {"d_model": 16, "encoder_attention_heads": 1, "encoder_ffn_dim": 16}
    return fill(WhisperEncoder(WhisperConfig(**golden_meta()["whisper_config"] | few)))


@pytest.fixture(scope="module")
def heard(golden: Arrays, encoder: WhisperEncoder) -> torch.Tensor:
    """Return the features of the golden voice."""
    return torch.cat(list(features([golden["pcm_16k"]], encoder, CPU)))


def hum(samples: int, seed: int = 1) -> Sound:
    """Return a sound that never repeats."""
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def chunks(sound: Sound, lengths: Iterable[int]) -> Iterator[Sound]:
    """Yield a sound in chunks of these lengths, again and again."""
    rest = sound
    for length in cycle(lengths):
        if not len(rest):
            return
        yield rest[:length]
        rest = rest[length:]


def numbered(*lengths: int) -> Iterator[torch.Tensor]:
    """Yield pieces of features, of so many steps, whose tokens count from 1 through all of them."""
    first = 1
    for length in lengths:
        tokens = torch.arange(first, first + length * LAYERS, dtype=torch.float32)
        yield tokens.reshape(length, LAYERS, 1).expand(-1, -1, CHANNELS)
        first += length * LAYERS


def numbers(window: torch.Tensor) -> list[int]:
    """Return the numbers of a window's tokens; 0 is silence."""
    assert window.shape == (TOKENS, CHANNELS)
    assert (window == window[:, :1]).all()
    return window[:, 0].int().tolist()


def due(start: int, steps: int) -> list[int]:
    """Return the numbers of the tokens of ten steps, where there are so many steps in all."""
    tokens = range(start * LAYERS + 1, (start + WINDOW) * LAYERS + 1)
    return [number if 1 <= number <= steps * LAYERS else 0 for number in tokens]


def assert_alike(found: torch.Tensor, due: NDArray[np.float32]) -> None:
    """Compare with what the reference found."""
    assert found.shape == due.shape
    assert np.abs(found.numpy() - due).max() <= LARGEST_DIFFERENCE * np.abs(due).max()


def test_the_spectrogram_is_the_references(golden: Arrays) -> None:
    spectrogram = log_mel(torch.from_numpy(golden["pcm_16k"]))

    assert spectrogram.shape == (80, 3000)
    assert_alike(spectrogram[:, :340], golden["mel"])


def test_all_five_hidden_states_are_the_references(heard: torch.Tensor, golden: Arrays) -> None:
    assert heard.shape == (len(golden["pcm_16k"]) * 50 // SECOND, LAYERS, CHANNELS)
    assert_alike(heard[: len(golden["hidden"])], golden["hidden"])


@pytest.mark.parametrize("fps", [25, 30])
def test_each_frame_hears_what_the_references_does(
    fps: int, heard: torch.Tensor, golden: Arrays
) -> None:
    frames = voice_frames(len(golden["pcm_16k"]) / SECOND, Fraction(fps))

    tokens = torch.stack(list(windows([heard], Fraction(fps), frames)))

    assert frames == golden[f"tokens_{fps}_count"]
    assert_alike(tokens[golden[f"tokens_{fps}_index"]], golden[f"tokens_{fps}"])


def test_tokens_are_told_apart_by_the_references_code(heard: torch.Tensor, golden: Arrays) -> None:
    tokens = torch.stack(list(windows([heard], Fraction(25), int(golden["tokens_25_count"]))))

    coded = tokens[golden["tokens_25_index"]] + position_code()

    assert_alike(coded, golden["tokens_25_pe"])


@pytest.mark.parametrize("fps", RATES)
def test_lips_keep_time_at_any_rate_from_the_first_frame_to_the_last(fps: Fraction) -> None:
    lengths = (1500, 1500, 1, 437)
    steps = sum(lengths)
    beyond = ceil(fps)
    frames = floor(Fraction(steps, 50) * fps) + beyond

    found = [numbers(window) for window in windows(numbered(*lengths), fps, frames)]

    # From 80 ms before a frame to 120 ms after it begins: what MuseTalk was trained on.
    assert found == [due(floor(50 * frame / fps) - 4, steps) for frame in range(frames)]


@pytest.mark.parametrize(
    ("fps", "frame", "first"),
    [
        (Fraction(25), 0, -4),
        (Fraction(25), 1000, 1996),
        # A rate cut to whole frames would be 2 s ahead after a minute,
        (Fraction(30000, 1001), 1800, 2999),
        # 2.5 s ahead,
        (Fraction(24000, 1001), 1440, 2999),
        # or out of range.
        (Fraction(60), 3599, 2995),
    ],
)
def test_lips_do_not_run_ahead_of_the_voice(fps: Fraction, frame: int, first: int) -> None:
    *_, last = windows(numbered(1500, 1500, 100), fps, frame + 1)

    assert numbers(last) == due(first, 3100)


def test_before_and_after_the_voice_there_is_silence() -> None:
    first, *_, last = windows(numbered(7), Fraction(25), 4)

    assert numbers(first) == [0] * 20 + list(range(1, 31))
    assert numbers(last) == [*range(11, 36), *[0] * 25]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_voice_shorter_than_a_window_is_heard_with_silence_around_it(steps: int) -> None:
    (found,) = windows(numbered(steps), Fraction(60), 1)

    assert numbers(found) == [0] * 20 + list(range(1, 5 * steps + 1)) + [0] * (30 - 5 * steps)


def test_frames_after_the_voice_hear_nothing() -> None:
    *_, last = windows(numbered(100), Fraction(25), 1000)

    assert not last.any()


def test_frames_without_any_voice_hear_nothing() -> None:
    found = list(windows([], Fraction(25), 3))

    assert [numbers(window) for window in found] == [[0] * TOKENS] * 3


def test_a_piece_of_the_voice_is_heard_when_a_frame_reaches_into_it_and_no_sooner() -> None:
    asked: list[int] = []

    def pieces() -> Iterator[torch.Tensor]:
        for number, piece in enumerate(numbered(1500, 1500, 1500)):
            asked.append(number)
            yield piece

    found = [len(asked) for _ in windows(pieces(), Fraction(25), 2250)]

    assert asked == [0, 1, 2]
    # The frame that ends with step 1500 is no. 747.
    assert [found.index(pieces) for pieces in (1, 2, 3)] == [0, 748, 1498]


@pytest.mark.parametrize(
    ("samples", "steps"),
    [
        (0, []),
        (16, [0]),
        (319, [0]),
        (320, [1]),
        (HALF_MINUTE, [1500]),
        (HALF_MINUTE + 1, [1500, 0]),
        (95 * SECOND, [1500, 1500, 1500, 250]),
    ],
)
def test_a_voice_of_any_length_has_50_steps_a_second(
    samples: int, steps: list[int], narrow: WhisperEncoder
) -> None:
    pieces = list(features(chunks(hum(samples), [SECOND]), narrow, CPU))

    assert [len(piece) for piece in pieces] == steps
    assert all(piece.isfinite().all() for piece in pieces)


@pytest.mark.parametrize("lengths", [(16_000,), (1, 0, 7, 4_801, 999), (HALF_MINUTE + 5_000,)])
def test_it_does_not_matter_in_which_chunks_a_voice_arrives(
    lengths: tuple[int, ...], narrow: WhisperEncoder
) -> None:
    sound = hum(HALF_MINUTE + SECOND)

    whole = list(features([sound], narrow, CPU))
    found = list(features(chunks(sound, lengths), narrow, CPU))

    assert len(found) == len(whole) == 2
    assert all(torch.equal(*pair) for pair in zip(found, whole, strict=True))


def test_a_long_voice_is_listened_to_while_it_arrives(narrow: WhisperEncoder) -> None:
    arrived: list[int] = []

    def endless() -> Iterator[Sound]:
        for second in count():
            arrived.append(second)
            yield hum(SECOND, second)

    first = next(features(endless(), narrow, CPU))

    assert len(first) == 1500
    assert len(arrived) == 30


def test_each_half_minute_is_heard_for_itself(narrow: WhisperEncoder) -> None:
    loud, quiet = 5 * hum(HALF_MINUTE), 0.01 * hum(2 * SECOND, seed=2)

    _, after_noise = features([loud, quiet], narrow, CPU)
    (alone,) = features([quiet], narrow, CPU)

    assert torch.equal(after_noise, alone)


def test_silence_is_heard_as_silence(narrow: WhisperEncoder) -> None:
    silence = np.zeros(SECOND, np.float32)

    (found,) = features([silence], narrow, CPU)
    spectrogram = log_mel(torch.from_numpy(silence))

    assert found.isfinite().all()
    # Ten bels below nothing, as Whisper scales it.
    assert (spectrogram == -1.5).all()
