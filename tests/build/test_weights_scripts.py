"""The scripts that bring the weights into an image, and what they say when they cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference.weights import WEIGHTS, WeightsFile
from inference.weights.lock import LOCK_NAME
from tests.adapters.transfer.loopback import Handler, body, status
from tests.build_scripts import run_script, script_of
from tests.hub import REVISION, Hub, open_hub, published

UNET, CONFIG = b"parameters" * 1000, b'{"heads": 8}'
LISTING = (published("v15/unet.pth", UNET), published("v15/config.json", CONFIG))

Fetch = Callable[..., None]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Open a hub that has what is listed."""
    with open_hub() as hub:
        hub.offer((LISTING[0], UNET), (LISTING[1], CONFIG))
        yield hub


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Name a weights directory that is not there yet."""
    return tmp_path / "weights"


@pytest.fixture
def fetch(hub: Hub, directory: Path) -> Fetch:
    """Return what the script does, on a few small files."""
    script = script_of("fetch_weights")
    return lambda: script.main([str(directory)], LISTING, hub.url)


def files(directory: Path) -> list[str]:
    """Return all that lies in a directory, however deep."""
    found = directory.rglob("*") if directory.exists() else ()
    return sorted(path.relative_to(directory).as_posix() for path in found if path.is_file())


def test_every_file_comes_at_its_commit_and_is_read_again(
    fetch: Fetch, hub: Hub, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch()
    first = capsys.readouterr().out
    asked = len(hub.asked)
    fetch()

    assert files(directory) == sorted([*(file.path for file in LISTING), LOCK_NAME])
    assert f"v15/unet.pth: ok, fetched, {REVISION}\n" in first
    assert "someone/tiny: MIT" in first
    assert "v15/unet.pth: ok, was there" in capsys.readouterr().out
    assert len(hub.asked) == asked


def truncated(hub: Hub, file: WeightsFile, content: bytes) -> None:
    hub.offer((file, content[:-1]))


def altered(hub: Hub, file: WeightsFile, content: bytes) -> None:
    hub.offer((file, content[:-1] + b"\x00"))


def of_another_commit(hub: Hub, file: WeightsFile, content: bytes) -> None:
    del hub.files[f"/{file.repository}/resolve/{file.revision}/{file.name}"]
    hub.files[f"/{file.repository}/resolve/main/{file.name}"] = content


def forbidden(hub: Hub, *_: object) -> None:
    answer_weights(hub, status(403))


def a_web_page(hub: Hub, *_: object) -> None:
    answer_weights(hub, body(b"<html>Please log in</html>"))


def answer_weights(hub: Hub, answer: Callable[[Handler], None]) -> None:
    """Give this answer to whoever wants the weights; the small file comes as ever."""
    usual = hub.answer
    hub.site.answers[0] = lambda handler: (answer if "unet" in handler.path else usual)(handler)


@pytest.mark.parametrize("spoil", [truncated, altered, of_another_commit, forbidden, a_web_page])
def test_a_file_that_is_not_as_published_stops_the_build_and_does_not_stay(
    fetch: Fetch, hub: Hub, directory: Path, spoil: Callable[[Hub, WeightsFile, bytes], None]
) -> None:
    spoil(hub, LISTING[0], UNET)

    with pytest.raises(SystemExit) as end:
        fetch()

    assert "v15/unet.pth" in str(end.value)
    assert "musetalk-worker weights fetch` again" in str(end.value)
    assert "v15/unet.pth" not in files(directory)


def test_the_published_weights_are_what_it_fetches_if_nothing_else_is_said(
    hub: Hub, directory: Path, tmp_path: Path
) -> None:
    hub.offer((WEIGHTS[0], b"something else"))

    done = run_script("fetch_weights", str(directory), HF_ENDPOINT=hub.url, HF_HOME=f"{tmp_path}")

    assert done.returncode == 1
    assert f"{WEIGHTS[0].path} came from {WEIGHTS[0].repository} with the wrong" in done.stderr
    assert files(directory) == []


def test_a_disk_that_takes_no_more_stops_the_build_and_nothing_half_stays(
    hub: Hub, directory: Path, tmp_path: Path
) -> None:
    hub.offer((WEIGHTS[0], UNET))

    done = run_script(
        "fetch_weights",
        str(directory),
        prefix=("prlimit", "--fsize=1000"),
        HF_ENDPOINT=hub.url,
        HF_HOME=f"{tmp_path}",
    )

    assert done.returncode == 1
    assert "too large" in done.stderr
    assert files(directory) == []


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, "COMPILE_CACHE_DIR must be set"),
        ({"COMPILE_CACHE_DIR": "/dev/null/x"}, "COMPILE_CACHE_DIR cannot be made"),
        ({"MUSETALK_ENGINE": "preview"}, "only musetalk has what to compile"),
        ({"BATCH_SIZE": "many"}, "BATCH_SIZE"),
    ],
)
def test_a_warm_up_that_cannot_be_says_which_setting_is_in_the_way(
    env: dict[str, str], named: str
) -> None:
    done = run_script("warm_up", **env)

    assert done.returncode == 1
    assert named in done.stderr


def test_a_warm_up_without_weights_says_how_to_get_them(tmp_path: Path) -> None:
    place = {"MUSETALK_WEIGHTS_DIR": f"{tmp_path}", "COMPILE_CACHE_DIR": f"{tmp_path / 'cache'}"}

    done = run_script("warm_up", **place)

    assert done.returncode == 1
    assert "musetalk-worker weights fetch" in done.stderr


def test_a_warm_up_that_left_nothing_is_none(weights: Path, tmp_path: Path) -> None:
    # What is compiled of the tiny networks takes minutes; so nothing is, which is noticed.
    done = run_script(
        "warm_up",
        MUSETALK_WEIGHTS_DIR=f"{weights}",
        COMPILE_CACHE_DIR=f"{tmp_path / 'compiled'}",
        DEVICE="cpu",
        BATCH_SIZE="1",
        TORCHDYNAMO_DISABLE="1",
    )

    assert done.returncode == 1
    assert "compiled is empty" in done.stderr
