"""The container image, as far as it can be told without building it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

from adapters import __version__
from adapters.config import Config
from tests.build_scripts import ROOT
from tests.dockerfile import Stage, environment, read_stages

DOCKERFILE = ROOT / "Dockerfile.serverless"
#: What names of variables give a secret away.
SECRETIVE = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return {stage.name or "": stage for stage in read_stages(DOCKERFILE)}


@pytest.fixture(scope="module")
def shipped(stages: dict[str, Stage]) -> Sequence[Stage]:
    """Return the stages that the image is made of, the base first."""
    made = [stages["worker"]]
    while made[0].base in stages:
        made.insert(0, stages[made[0].base])
    return made


def sources(stage: Stage) -> list[tuple[str | None, str]]:
    """Return what a stage copies: from which other stage, if any, and which path."""
    copied = []
    for line in stage.all("COPY"):
        *words, _ = line.split()
        origin = next((w.removeprefix("--from=") for w in words if w.startswith("--from=")), None)
        copied += [(origin, word) for word in words if not word.startswith("--")]
    return copied


def admitted(path: str) -> bool:
    """Tell whether .dockerignore lets a file into the build; the last pattern that fits decides."""
    verdict = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!").strip()
        if not pattern or pattern.startswith("#"):
            continue
        # "**/" also stands for no directory at all.
        forms = {pattern, pattern.removeprefix("**/")}
        if any(fnmatch(path, form) for form in forms):
            verdict = line.startswith("!")
    return verdict


# -- where it comes from ---------------------------------------------------------------------------


def test_every_base_is_another_stage_or_pinned_by_digest(stages: dict[str, Stage]) -> None:
    bases = {stage.base for stage in stages.values()} - set(stages)

    assert bases - {"weights-${WEIGHTS}"} == {
        base for base in bases if re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base)
    }
    assert not [base for base in bases if "latest" in base]


def test_the_weights_are_baked_in_unless_they_are_left_to_a_volume(
    stages: dict[str, Stage],
) -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")

    assert re.search(r"^ARG WEIGHTS=baked$", text, re.MULTILINE)
    assert stages["weights"].base == "weights-${WEIGHTS}"
    assert {"weights-baked", "weights-volume"} <= set(stages)
    assert ("weights", "/weights") in sources(stages["worker"])


def test_everything_that_is_copied_is_there_and_let_in(stages: dict[str, Stage]) -> None:
    copied = [(stage, *each) for stage in stages.values() for each in sources(stage)]

    assert copied
    for stage, origin, path in copied:
        if origin is not None:
            assert origin in stages, f"{stage.name} copies from {origin}"
            continue
        found = ROOT / path
        files = [found] if found.is_file() else [*found.rglob("*.py")]
        assert files, f"{path} is not there"
        assert all(admitted(str(file.relative_to(ROOT))) for file in files), path


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".env",
        "tests/conftest.py",
        "docs/contract.md",
        "assets/face.mp4",
        "weights/musetalkV15/unet.pth",
        "out/demo.mp4",
        ".venv/bin/python",
        "inference/__pycache__/engine.cpython-311.pyc",
        "build/credentials.json",
    ],
)
def test_what_the_image_does_not_need_stays_out_of_its_build(path: str) -> None:
    assert not admitted(path)


def test_python_packages_come_from_lock_files_alone(stages: dict[str, Stage]) -> None:
    runs = [line for stage in stages.values() for line in stage.all("RUN")]
    installs = re.findall(r"pip (?:install|wheel) .*?(?= &&|$)", "\n".join(runs), re.MULTILINE)

    assert installs
    for words in installs:
        locked = "--require-hashes --only-binary :all: --no-deps -r " in words
        assert locked or ("--no-index" in words and "--no-deps" in words), words


def test_nothing_is_fetched_by_hand(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        assert not stage.all("ADD")
        assert not re.search(r"https?://|\b(curl|wget|git clone)\b", "\n".join(stage.all("RUN")))


def test_ffmpeg_is_patched_and_knows_the_cards_encoder(stages: dict[str, Stage]) -> None:
    (run,) = (line for line in stages["system"].all("RUN") if "install" in line)

    assert re.search(r"dpkg --compare-versions .*ffmpeg\)\" ge 7:7\.1\.5(?= &&)", run)
    assert "grep -q ' h264_nvenc '" in run


def test_the_packages_are_seen_to_use_the_gpu_while_the_image_is_built(
    stages: dict[str, Stage],
) -> None:
    assert any("check_packages.py" in line for line in stages["python"].all("RUN"))


# -- what is shipped -------------------------------------------------------------------------------


def test_a_change_of_the_code_ships_neither_packages_nor_weights_again(
    shipped: Sequence[Stage],
) -> None:
    order = [stage.name for stage in shipped]
    worker = [each for each in shipped[-1].instructions if each.word in {"COPY", "RUN", "ARG"}]
    weights, code, *_ = (at for at, each in enumerate(worker) if "--from=" in each.rest)
    commit = next(at for at, each in enumerate(worker) if each.rest.startswith("GIT_COMMIT"))

    assert order == ["system", "python", "worker"]
    assert "--from=weights" in worker[weights].rest
    assert "--from=code" in worker[code].rest
    assert weights < code < commit
    for stage in shipped[:-1]:
        assert not [path for _, path in sources(stage) if not path.startswith("build/")]


def test_the_weights_are_made_anew_only_if_what_makes_them_changes(
    stages: dict[str, Stage],
) -> None:
    copied = {path for _, path in sources(stages["weights-baked"])}

    assert not copied & {"inference", "handler", "adapters"}
    assert "inference/weights" in copied


def test_the_worker_is_nobody_special(stages: dict[str, Stage]) -> None:
    worker = stages["worker"]
    user = worker.only("USER").rest

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    made = next(line for line in worker.all("RUN") if "useradd" in line)
    assert f"--uid {user.partition(':')[0]} " in made
    words = [each.word for each in worker.instructions]
    assert "RUN" not in words[words.index("USER") :]


def test_ffmpeg_is_all_that_debian_adds_and_no_cache_is_left(shipped: Sequence[Stage]) -> None:
    runs = " ".join(line for stage in shipped for line in stage.all("RUN"))

    added = re.findall(r"apt-get install ([^&]*) &&", runs)
    assert added == ["--yes --no-install-recommends ffmpeg"]
    assert "rm -rf /var/lib/apt/lists/*" in runs
    assert environment(shipped)["PIP_NO_CACHE_DIR"] == "1"


def test_no_secret_is_built_in(stages: dict[str, Stage]) -> None:
    told = [each for stage in stages.values() for each in stage.instructions]
    words = [word for each in told if each.word in {"ENV", "ARG"} for word in each.rest.split()]
    names = [word.partition("=")[0] for word in words]

    assert names
    assert not [name for name in names if SECRETIVE.search(name)]


# -- how it runs -----------------------------------------------------------------------------------


def test_signals_reach_the_worker_which_is_started_as_the_predecessor_was(
    stages: dict[str, Stage],
) -> None:
    worker = stages["worker"]

    assert worker.only("ENTRYPOINT").argv == ["musetalk-worker"]
    assert worker.only("CMD").argv == ["local"]
    assert worker.only("STOPSIGNAL").rest == "SIGTERM"


def test_its_settings_are_accepted_by_the_worker(shipped: Sequence[Stage]) -> None:
    settings = environment(shipped)

    config = Config.from_env(settings)

    assert (config.host, config.port, config.device) == ("0.0.0.0", 8000, "cuda")
    assert config.weights_dir == Path("/weights")
    home = Path(settings["HOME"])
    assert home in config.avatar_cache_dir.parents
    assert config.spool_dir
    assert home in config.spool_dir.parents


def test_a_gpu_that_can_encode_is_asked_for_and_no_hub(shipped: Sequence[Stage]) -> None:
    settings = environment(shipped)

    assert settings["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert settings["NVIDIA_DRIVER_CAPABILITIES"] == "compute,video,utility"
    assert settings["HF_HUB_OFFLINE"] == "1"
    assert settings["PYTHONUNBUFFERED"] == "1"


def test_its_health_is_asked_for_by_a_program_that_is_in_it(stages: dict[str, Stage]) -> None:
    check = stages["worker"].only("HEALTHCHECK")

    assert check.argv[0] == "python"
    place, _, name = check.argv[1].rpartition("/")
    (copied,) = (line for line in stages["worker"].all("COPY") if name in line)
    assert copied.split()[-1].rstrip("/") == place


def test_it_says_what_it_is(stages: dict[str, Stage]) -> None:
    worker = stages["worker"]
    label = worker.only("LABEL").rest

    assert f"VERSION={__version__}" in worker.all("ARG")
    assert 'org.opencontainers.image.version="${VERSION}"' in label
    assert 'org.opencontainers.image.revision="${GIT_COMMIT}"' in label
