from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import clips
from tests.adapters.transfer.loopback import body, serving
from tests.conftest import ASSETS
from tests.delivery.service import Service, open_service
from tests.faults.aftermath import QUERY, Watched

#: So short and small that a whole job takes a third of a second.
FILM = "-t 0.5 -vf scale=128:128 -an -c:v libx264 -preset ultrafast -movflags +faststart"
VOICE = "-t 0.4 -ac 1 -ar 16000"


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return half a second of the sample face."""
    target = tmp_path_factory.mktemp("film") / "face.mp4"
    clips.run_ffmpeg("-i", f"{ASSETS / 'face.mp4'}", *FILM.split(), f"{target}")
    return target


@pytest.fixture(scope="session")
def syllable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the beginning of the sample voice."""
    target = tmp_path_factory.mktemp("syllable") / "voice.wav"
    clips.run_ffmpeg("-i", f"{ASSETS / 'voice.wav'}", *VOICE.split(), f"{target}")
    return target


@pytest.fixture(scope="session")
def good(film: Path, syllable: Path) -> Iterator[Mapping[str, str]]:
    """Return a job that can be done, its URLs signed, and serve its media."""
    with serving(body(film.read_bytes())) as face, serving(body(syllable.read_bytes())) as voice:
        yield {
            "video_url": f"{face.url}/face.mp4?{QUERY}",
            "audio_url": f"{voice.url}/voice.wav?{QUERY}",
        }


@pytest.fixture(scope="session")
def store() -> Iterator[Service]:
    with open_service() as service:
        yield service
        service.empty()


@pytest.fixture
def service(store: Service) -> Iterator[Service]:
    """Lend a store whose faults are over at the end."""
    yield store
    store.faults.clear()
    store.compares = True


@pytest.fixture
def name() -> str:
    """Return the id of a job that nobody has ever done."""
    return uuid.uuid4().hex


@pytest.fixture
def worker(watched: Watched) -> Iterator[Watched]:
    """Lend the worker of a file's tests, and see after each that it came to no harm."""
    yield watched
    watched.assert_unharmed()
