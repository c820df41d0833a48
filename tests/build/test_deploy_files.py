"""What stands in deploy/: what it names exists, and it fits the image and the worker."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from adapters.config import GPU_CLASS_VARIABLES, IDENTITY_VARIABLES, Config
from adapters.polling.overseer import GIVE_BACK_SECONDS
from tests.build_scripts import ROOT
from tests.dockerfile import environment, read_stages

DEPLOY = ROOT / "deploy"
SETTINGS = {
    *(field.alias for field in Config.model_fields.values() if field.alias),
    *IDENTITY_VARIABLES,
    *GPU_CLASS_VARIABLES,
}
#: Read by libraries and the system; by Compose, to fill in its file.
OTHERS = {"HOME", "TMPDIR", "HF_HUB_OFFLINE"} | {"IMAGE", "GPU", "HTTP_AT"}
#: What the worker writes, jobs' files apart.
PLACES = ("AVATAR_CACHE_DIR", "SPOOL_DIR")
SECONDS = {"s": 1, "min": 60, "h": 3600}
#: What a key looks like to the worker; for an example that has none.
KEYS = {
    **dict.fromkeys(("B2_KEY_ID", "B2_APP_KEY", "B2_BUCKET_NAME"), "something"),
    **dict.fromkeys(("INTERNAL_API_KEY", "WORKER_TOKEN", "BUFFER_WORKER_ID"), "something"),
    "IMAGE_DIGEST": f"sha256:{'0' * 64}",
}
#: systemd says so before 254, which knows them.
YOUNG_KEYS = re.compile(r"Unknown key.*Restart(Steps|MaxDelaySec)")


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """Return a file of Compose's."""
    content: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return content


def example() -> dict[str, str]:
    """Return the settings of the example, as docker reads them."""
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    settings = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in settings}


def unit() -> Mapping[str, list[str]]:
    """Return the lines of the unit by their key; environment variables by ``Environment=NAME``."""
    lines = defaultdict(list)
    for line in (DEPLOY / "musetalk-worker.service").read_text(encoding="utf-8").splitlines():
        key, given, value = line.partition("=")
        if given and not line.startswith("#"):
            name, assigned, text = value.partition("=")
            own = key == "Environment" and assigned
            lines[f"{key}={name}" if own else key].append(text if own else value)
    return lines


def seconds(span: str) -> float:
    """Return the seconds of a span of time, as Compose and systemd write it."""
    number, word = re.fullmatch(r"(\d+)(s|min|h)", span).groups()  # type: ignore[union-attr]
    return int(number) * SECONDS[word]


def test_the_example_names_only_what_is_read_and_holds_no_keys() -> None:
    secret = {
        field.alias
        for field in Config.model_fields.values()
        if SecretStr.__name__ in str(field.annotation)
    }
    keys = secret | {"B2_KEY_ID"}

    named = example()

    assert named.keys() <= SETTINGS | OTHERS
    assert {"INTERNAL_API_KEY", "B2_APP_KEY", "WORKER_TOKEN"} < keys & named.keys()
    assert not {name: named[name] for name in keys & named.keys() if named[name]}


def test_the_example_once_filled_in_is_what_a_worker_starts_with() -> None:
    config = Config.from_env(example() | KEYS)

    assert config.has_storage
    assert config.buffer_orchestrator_base_url
    # What it proposes beside is what the worker would do anyway.
    proposed = example().keys() - KEYS.keys() - {"PROVIDER", "BUFFER_ORCHESTRATOR_BASE_URL"}
    plain = Config.from_env(KEYS)
    assert {
        name: getattr(config, name)
        for name, field in Config.model_fields.items()
        if field.alias in proposed
    } == {
        name: getattr(plain, name)
        for name, field in Config.model_fields.items()
        if field.alias in proposed
    }


@pytest.mark.parametrize("name", ["compose.yaml", "compose.weights.yaml"])
def test_compose_is_filled_in_from_what_the_example_names(name: str) -> None:
    wanted = re.findall(r"\$\{(\w+)", (DEPLOY / name).read_text(encoding="utf-8"))

    services = compose(name)["services"].values()

    assert wanted
    assert set(wanted) <= example().keys()
    given = {name for service in services for name in service.get("environment", {})}
    assert given <= SETTINGS | OTHERS


def test_compose_pulls_the_very_image_that_results_tell_of() -> None:
    worker = compose()["services"]["worker"]

    assert re.fullmatch(r"\$\{IMAGE:\?[^}]+\}@\$\{IMAGE_DIGEST:\?[^}]+\}", worker["image"])
    assert worker["environment"]["IMAGE_DIGEST"] == "${IMAGE_DIGEST}"
    assert compose("compose.weights.yaml")["services"]["fetch-weights"]["image"] == worker["image"]


def test_compose_starts_a_broken_worker_again_and_gives_a_stopped_one_its_time() -> None:
    worker = compose()["services"]["worker"]

    # on-failure would do after a fault, but not after a restart of the machine.
    assert worker["restart"] == "unless-stopped"
    assert worker["command"] == ["local"]
    drain_seconds = float(worker["environment"]["DRAIN_SEC"])
    assert seconds(worker["stop_grace_period"]) > drain_seconds + GIVE_BACK_SECONDS


def test_compose_leaves_the_health_check_to_the_image_which_asks_hc() -> None:
    image = read_stages(ROOT / "Dockerfile.serverless")[-1]

    (script,) = {word for word in image.only("HEALTHCHECK").argv if word.endswith(".py")}

    assert "healthcheck" not in compose()["services"]["worker"]
    asks = (ROOT / "build" / Path(script).name).read_text(encoding="utf-8")
    assert re.findall(r'request\("GET", "(.+)"\)', asks) == ["/hc"]


def test_in_compose_the_worker_can_write_where_it_does_and_nowhere_else() -> None:
    worker = compose()["services"]["worker"]
    image = environment(read_stages(ROOT / "Dockerfile.serverless"))

    mounted = [volume.partition(":")[2] for volume in worker["volumes"]]
    in_memory = [mount.partition(":")[0] for mount in worker["tmpfs"]]

    assert worker["read_only"] is True
    assert worker["cap_drop"] == ["ALL"]
    assert worker["security_opt"] == ["no-new-privileges:true"]
    # A volume takes the owner of the image's directory: a place below it would be root's.
    assert mounted == [image["HOME"]]
    assert all(Path(image[name]).is_relative_to(image["HOME"]) for name in PLACES)
    assert in_memory == [image["TMPDIR"]]


def test_the_weights_of_a_volume_lie_where_the_image_looks_and_are_only_read() -> None:
    image = environment(read_stages(ROOT / "Dockerfile.serverless"))
    place = Config.from_env(image).weights_dir
    services = compose("compose.weights.yaml")["services"]

    assert services["worker"]["volumes"] == [f"weights:{place}:ro"]
    fetching = services["fetch-weights"]
    assert fetching["volumes"] == [f"weights:{place}"]
    assert fetching["command"] == ["weights", "fetch"]
    assert (image["HF_HUB_OFFLINE"], fetching["environment"]["HF_HUB_OFFLINE"]) == ("1", "0")


def test_the_unit_names_only_settings_that_there_are() -> None:
    given = {key.removeprefix("Environment=") for key in unit() if key.startswith("Environment=")}

    assert given
    assert given <= SETTINGS | OTHERS


def test_the_unit_starts_a_broken_worker_again_and_gives_a_stopped_one_its_time() -> None:
    lines = unit()

    assert lines["Restart"] == ["on-failure"]
    assert not lines["RestartPreventExitStatus"]
    assert int(lines["StartLimitBurst"][0]) > 1
    # Else the engine and its ffmpegs were told to stop, too, with the job in hand.
    assert lines["KillMode"] == ["mixed"]
    assert lines["KillSignal"] == ["SIGTERM"]
    (drain_seconds,) = map(float, lines["Environment=DRAIN_SEC"])
    assert seconds(lines["TimeoutStopSec"][0]) > drain_seconds + GIVE_BACK_SECONDS


def test_the_units_worker_can_write_where_it_does() -> None:
    lines = unit()
    own = [
        *(f"/var/cache/{name}" for name in lines["CacheDirectory"]),
        *(f"/var/lib/{name}" for name in lines["StateDirectory"]),
    ]

    assert lines["ProtectSystem"] == ["strict"]
    for name in (*PLACES, "HOME"):
        (place,) = lines[f"Environment={name}"]
        assert any(Path(place).is_relative_to(each) for each in own), name
    assert (lines["PrivateTmp"], lines["Environment=TMPDIR"]) == (["yes"], ["/var/tmp"])
    assert any(device.startswith("char-nvidia") for device in lines["DeviceAllow"])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "musetalk-worker.service").read_text(encoding="utf-8")
    here = tmp_path / "musetalk-worker.service"
    # It looks whether the program is there.
    here.write_text(re.sub("(?m)^ExecStart=\\S+", f"ExecStart={sys.executable}", text))

    done = subprocess.run(
        ["systemd-analyze", "verify", str(here)], capture_output=True, text=True, check=False
    )

    complaints = [line for line in done.stderr.splitlines() if here.name in line]
    assert [line for line in complaints if not YOUNG_KEYS.search(line)] == []
