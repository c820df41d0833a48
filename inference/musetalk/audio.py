"""What a voice asks of a mouth: Whisper's features, a window of them for each frame.

Source: MuseTalk's ``audio_processor.py`` and OpenAI's Whisper. Frame i hears the steps
``[floor(50 i / fps) - 4, + 10)``, which is what MuseTalk was trained on; its own inference script
agrees at 25 to 49 frames a second, is late below and fails above.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from math import floor, log

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from inference.media.sound import RATE_HZ
from inference.musetalk.device import Device, working

#: Whisper listens to pieces of 30 s, each on its own.
PIECE_SAMPLES = 30 * RATE_HZ
FFT_SAMPLES = 400
HOP_SAMPLES = 160
MELS = 80
HIGHEST_HZ = 8000.0
#: The quietest power that is told apart, and how far below the loudest mel the rest is cut off.
FLOOR_POWER = 1e-10
RANGE_BELS = 8.0

#: Whisper's steps: two hops each.
STEPS_PER_SECOND = 50
STEP_SAMPLES = RATE_HZ // STEPS_PER_SECOND
#: A window reaches so many steps back from its frame's first, and is so long.
STEPS_BEFORE = 4
WINDOW_STEPS = 10

#: Width of a token, and how many there are to a window: one for each step and hidden state.
CHANNELS = 384
LAYERS = 5
TOKENS = WINDOW_STEPS * LAYERS
#: Base of the position code's wavelengths (Vaswani et al. 2017, section 3.5).
LONGEST_WAVE = 10_000.0


def log_mel(samples: torch.Tensor) -> torch.Tensor:
    """Return the log-mel spectrogram [80, 3000] of up to 30 s of sound, padded with silence.

    Scaled by the loudest mel of this piece alone, as Whisper's feature extractor does.
    """
    piece = functional.pad(samples, (0, PIECE_SAMPLES - len(samples)))
    window = torch.hann_window(FFT_SAMPLES, device=samples.device)
    spectrum = torch.stft(piece, FFT_SAMPLES, HOP_SAMPLES, window=window, return_complex=True)
    power = spectrum[:, :-1].abs() ** 2
    bels = torch.log10(torch.clamp(_filters().to(power) @ power, min=FLOOR_POWER))
    return (torch.maximum(bels, bels.max() - RANGE_BELS) + 4) / 4


@cache
def _filters() -> torch.Tensor:
    bank = mel_filter_bank(
        FFT_SAMPLES // 2 + 1, MELS, 0.0, HIGHEST_HZ, RATE_HZ, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(bank.T.astype(np.float32))


def features(
    sound: Iterable[NDArray[np.float32]], encoder: WhisperEncoder, device: Device
) -> Iterator[torch.Tensor]:
    """Yield Whisper's five hidden states for each piece of sound: [steps, 5, 384], 50 a second."""
    for piece in _pieces(sound):
        with working(), torch.inference_mode():
            mel = log_mel(torch.from_numpy(piece).to(device.place))
            heard = encoder(mel[None].to(device.dtype), output_hidden_states=True)
            states = torch.stack(heard.hidden_states, dim=2)[0]
        yield states[: len(piece) // STEP_SAMPLES]


def _pieces(sound: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    held = np.zeros(0, np.float32)
    for chunk in sound:
        held = np.concatenate([held, chunk])
        while len(held) >= PIECE_SAMPLES:
            yield held[:PIECE_SAMPLES]
            held = held[PIECE_SAMPLES:]
    if len(held):
        yield held


def windows(heard: Iterable[torch.Tensor], fps: Fraction, frames: int) -> Iterator[torch.Tensor]:
    """Yield what each frame hears: [50, 384], step by step, silence before and after the voice.

    ``heard`` is :func:`features`; no more of it is held than a piece and a window.
    """
    pieces = iter(heard)
    held = next(pieces, torch.zeros(0, LAYERS, CHANNELS))
    held = functional.pad(held, (0, 0, 0, 0, STEPS_BEFORE, 0))
    first = -STEPS_BEFORE
    for frame in range(frames):
        start = floor(STEPS_PER_SECOND * frame / fps) - STEPS_BEFORE
        end = start - first + WINDOW_STEPS
        while len(held) < end and (more := next(pieces, None)) is not None:
            held = torch.cat([held, more])
        held, first = held[start - first :], start
        window = held[:WINDOW_STEPS]
        window = functional.pad(window, (0, 0, 0, 0, 0, WINDOW_STEPS - len(window)))
        yield window.reshape(TOKENS, CHANNELS)


def position_code() -> torch.Tensor:
    """Return what is added to the 50 tokens of a window: [50, 384], sines and cosines in turn."""
    position = torch.arange(TOKENS)[:, None]
    rate = torch.exp(torch.arange(0, CHANNELS, 2) * (-log(LONGEST_WAVE) / CHANNELS))
    angles = position * rate
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(TOKENS, CHANNELS)
