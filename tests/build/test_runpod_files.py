"""What RunPod's Hub reads of this repository: shaped as documented, and true of the worker."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from adapters import __version__
from adapters.config import Config
from tests.adapters.transfer.loopback import Handler, body, serving, status
from tests.build_scripts import ROOT, run_script
from tests.drive_runpod import RunpodDriver

PLACE = ROOT / ".runpod"
#: Where the Hub's tests fetch their media; whoever publishes the repository puts their name there.
PUBLIC = re.compile(r"https://raw\.githubusercontent\.com/[\w-]+/musetalk-worker/main/")

TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
VALUE = {"type": ["string", "number", "boolean"]}
CUDA = {"type": "array", "items": {"type": "string", "pattern": r"^\d+\.\d+$"}, "minItems": 1}
POOL = "AMPERE_(16|24|48|80)|ADA_(24|48_PRO|80_PRO)|HOPPER_141"


def record(needed: str, more: str = "", /, **fields: Any) -> dict[str, Any]:
    """Return the shape of an object; a field of which nothing is said is a text."""
    names = [*needed.split(), *more.split()]
    return {
        "type": "object",
        "properties": dict.fromkeys(names, TEXT) | fields,
        "required": needed.split(),
        "additionalProperties": False,
    }


INPUT = record(
    "name type description",
    "default options required min max trueValue falseValue advanced",
    type={"enum": ["string", "number", "boolean", "huggingface"]},
    default=VALUE,
    options={"type": "array", "items": record("label value")},
    min={"type": "number"},
    max={"type": "number"},
    required={"type": "boolean"},
    advanced={"type": "boolean"},
)
HUB = record(
    "title description type category config",
    "iconUrl",
    type={"const": "serverless"},
    category={"enum": ["audio", "embedding", "language", "video", "image"]},
    config=record(
        "runsOn containerDiskInGb gpuCount gpuIds",
        "allowedCudaVersions presets env",
        runsOn={"const": "GPU"},
        containerDiskInGb=COUNT,
        gpuCount=COUNT,
        gpuIds={"type": "string", "pattern": f"^({POOL})(,({POOL}))*$"},
        allowedCudaVersions=CUDA,
        presets={
            "type": "array",
            "items": record(
                "name defaults", defaults={"type": "object", "additionalProperties": VALUE}
            ),
        },
        env={
            "type": "array",
            "items": {"oneOf": [record("key value"), record("key input", input=INPUT)]},
        },
    ),
)
TESTS = record(
    "tests config",
    tests={
        "type": "array",
        "minItems": 1,
        "items": record("name input", "timeout", input={"type": "object"}, timeout=COUNT),
    },
    config=record(
        "gpuTypeId gpuCount",
        "env allowedCudaVersions",
        gpuCount=COUNT,
        env={"type": "array", "items": record("key value")},
        allowedCudaVersions=CUDA,
    ),
)


def read(name: str) -> dict[str, Any]:
    """Return one of the files."""
    content: dict[str, Any] = json.loads((PLACE / name).read_text(encoding="utf-8"))
    return content


def settings() -> dict[str, dict[str, Any]]:
    """Return what the Hub asks for or sets, by the variable."""
    return {each["key"]: each for each in read("hub.json")["config"]["env"]}


@pytest.mark.parametrize(("name", "shape"), [("hub.json", HUB), ("tests.json", TESTS)])
def test_the_files_have_the_shape_that_is_documented(name: str, shape: dict[str, Any]) -> None:
    faults = Draft202012Validator(shape).iter_errors(read(name))

    assert [fault.message for fault in faults] == []


def test_what_the_hub_asks_for_are_settings_and_what_it_proposes_are_their_defaults() -> None:
    fields = {field.alias: field for field in Config.model_fields.values()}

    proposed = {
        key: setting["input"]["default"]
        for key, setting in settings().items()
        if "input" in setting
    }

    assert settings().keys() <= fields.keys()
    # An empty field is a setting that is not set.
    known = {key: fields[key].default for key in proposed}
    assert {key: value or "" for key, value in known.items()} == {
        key: value or "" for key, value in proposed.items()
    }


def test_every_preset_is_something_that_a_worker_starts_with() -> None:
    for preset in read("hub.json")["config"]["presets"]:
        chosen = {key: str(value) for key, value in preset["defaults"].items()}

        assert chosen.keys() <= settings().keys()
        Config.from_env(chosen)


def test_only_machines_are_asked_for_that_the_image_starts_on(tmp_path: Path) -> None:
    image = (ROOT / "Dockerfile.serverless").read_text(encoding="utf-8")
    (tmp_path / "env").touch()
    words = ("--image", "worker:1", "--env-file", str(tmp_path / "env"), "--dry-run")

    (needed,) = re.findall(r"NVIDIA_REQUIRE_CUDA=cuda>=([\d.]+)", image)
    deployed = re.findall(r'"minCudaVersion": "(.+)"', run_script("deploy_runpod", *words).stdout)
    offered = read("hub.json")["config"]["allowedCudaVersions"]

    assert deployed
    assert all(version_of(each) >= version_of(needed) for each in (*deployed, *offered))


def version_of(text: str) -> list[int]:
    return [int(part) for part in text.split(".")]


def test_the_hub_starts_the_release_of_this_version_through_its_door() -> None:
    lines = (PLACE / "Dockerfile").read_text(encoding="utf-8").splitlines()

    assert lines[-2].endswith(f"/musetalk-worker:{__version__}")
    assert lines[-1] == 'CMD ["runpod"]'


@pytest.fixture(scope="module")
def published() -> Iterator[str]:
    """Serve this repository's assets as its public copy does."""

    def answer(handler: Handler) -> None:
        path = ROOT / handler.path.lstrip("/")
        (body(path.read_bytes()) if path.parent.name == "assets" else status(404))(handler)

    with serving(answer) as site:
        yield f"{site.url}/"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunpodDriver]:
    """Start what RunPod looks for, under the real SDK, with the settings of the Hub's tests."""
    home = tmp_path_factory.mktemp("hub")
    env = {each["key"]: each["value"] for each in read("tests.json")["config"]["env"]}
    command = (sys.executable, ".runpod/handler.py")
    with RunpodDriver(home, command, **env | {"OUTPUT_DIR": f"{home / 'out'}"}) as worker:
        yield worker


@pytest.mark.parametrize("test", read("tests.json")["tests"], ids=lambda test: test["name"])
def test_the_hubs_tests_pass(test: dict[str, Any], worker: RunpodDriver, published: str) -> None:
    job = json.loads(PUBLIC.sub(published, json.dumps(test["input"])))

    result = worker.run(job)

    assert result["status"] == "success", result
    assert not result["warnings"]
    assert list(Path(worker.out).glob(f"{result['musetalk_job_id']}.mp4"))
