"""What the stories share: the contract's examples, a worker with the preview engine, its media."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from adapters.bootstrap import bootstrap, web_fetch
from adapters.config import Config
from adapters.transfer.local import LocalFetch
from handler import Failure, Runtime, Success, handle
from tests import clips

TESTS = Path(__file__).parent
ASSETS = TESTS.parent / "assets"

# What a property costs in time says more about the machine than about the property.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

#: With this one the tiny MuseTalk takes most of the sample face for skin, and some of it for neck.
SKIN_SEED = 130


def read_contract(name: str) -> dict[str, Any]:
    """Return one of the contract's examples."""
    return json.loads((TESTS / "contract" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Have processes that are started here heed SIGINT: a shell's background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def contract() -> Callable[[str], dict[str, Any]]:
    """Return what reads the contract's examples."""
    return read_contract


@pytest.fixture
def job() -> dict[str, Any]:
    """Return the contract's example of a job."""
    return read_contract("job")


@dataclass(frozen=True)
class Studio:
    """A worker whose videos land in a directory, and who knows where jobs did their work."""

    runtime: Runtime
    out: Path

    def film(self, video: Path, audio: Path, **fields: Any) -> tuple[Success, Path]:
        """Run a job that must succeed; return its result and its video."""
        result = self.run(video, audio, **fields)
        assert isinstance(result, Success), result
        return result, self.out / f"{result.musetalk_job_id}.mp4"

    def fail(self, video: Path, audio: Path, **fields: Any) -> Failure:
        """Run a job that must fail, and do so without leaving a video."""
        result = self.run(video, audio, **fields)
        assert isinstance(result, Failure), result
        assert not list(self.out.glob("*"))
        return result

    def run(self, video: Path, audio: Path, **fields: Any) -> Success | Failure:
        """Run a job on local files."""
        urls = {"video_url": video.as_uri(), "audio_url": audio.as_uri()}
        return handle({**urls, **fields}, self.runtime)


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    """Open a worker for one test."""
    return open_studio(tmp_path)


def open_studio(place: Path, **env: str) -> Studio:
    """Open a worker below a directory."""
    out = place / "out"
    config = Config.from_env(
        {
            "MUSETALK_ENGINE": "preview",
            "AVATAR_CACHE_DIR": str(place / "avatars"),
            "OUTPUT_DIR": str(out),
            **env,
        }
    )
    return Studio(bootstrap(config, fetch=LocalFetch(web_fetch(config))), out)


def open_musetalk(place: Path, weights: Path, **env: str) -> Studio:
    """Open a worker with MuseTalk below a directory."""
    # Small batches are what a CPU likes, and what makes several of a short clip.
    engine = {"MUSETALK_ENGINE": "musetalk", "DEVICE": "cpu", "BATCH_SIZE": "2"}
    return open_studio(place, **(engine | {"MUSETALK_WEIGHTS_DIR": f"{weights}"} | env))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights of a tiny MuseTalk that sees the sample face."""
    # PyTorch takes seconds to import, and most tests do without it.
    from tests.tiny_musetalk import write_tiny_musetalk  # noqa: PLC0415

    return write_tiny_musetalk(tmp_path_factory.mktemp("weights") / "tiny", seed=SKIN_SEED)


@pytest.fixture(scope="session")
def face() -> Path:
    """Return the sample face: 4 s at 25 frames a second."""
    return ASSETS / "face.mp4"


@pytest.fixture(scope="session")
def voice() -> Path:
    """Return the sample voice: 6 s, silent from 3.12 s to 3.62 s."""
    return ASSETS / "voice.wav"


@pytest.fixture(scope="session")
def word(voice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the first second of the sample voice, where its length does not matter."""
    target = tmp_path_factory.mktemp("word") / "word.wav"
    clips.run_ffmpeg("-i", f"{voice}", "-t", "1", f"{target}")
    return target
