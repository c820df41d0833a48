"""What a deployment to Modal is told by the environment in which it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.config import Config
from tests.drive_modal import APP, BUCKET, NAME
from tests.modal_backend import ModalBackend


def test_gpus_and_containers_are_chosen_where_the_deployment_is_made(tmp_path: Path) -> None:
    with ModalBackend(tmp_path, {NAME: BUCKET}) as backend:
        deployed = backend.deploy(
            APP,
            MUSETALK_GPUS="L4,T4",
            MUSETALK_MIN_CONTAINERS="1",
            MUSETALK_MAX_CONTAINERS="3",
            MUSETALK_SCALEDOWN_SEC="300",
        )

    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    worker = backend.registry.function("Worker.*")
    gpus = [choice.resources.gpu_config.gpu_type for choice in worker.choices]
    scaling = worker.definition.autoscaler_settings
    assert gpus == ["L4", "T4"]
    assert (scaling.min_containers, scaling.max_containers) == (1, 3)
    assert scaling.scaledown_window == 300


def test_results_tell_the_commit_that_the_deployment_was_told(tmp_path: Path) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    with ModalBackend(tmp_path, {NAME: BUCKET}) as backend:
        backend.deploy(APP, GIT_COMMIT=commit)

        env = backend.registry.env("Worker.*")

    assert Config.from_env(env).git_commit == commit


@pytest.mark.parametrize(
    "name", ["MUSETALK_MAX_CONTAINERS", "MUSETALK_SCALEDOWN_SEC", "GIT_COMMIT"]
)
def test_a_setting_that_is_no_number_stops_the_deployment_and_is_named(
    tmp_path: Path, name: str
) -> None:
    with ModalBackend(tmp_path, {NAME: BUCKET}) as backend:
        deployed = backend.deploy(APP, **{name: "many"})

    assert deployed.returncode != 0
    assert f"{name}=many" in deployed.stdout + deployed.stderr
    assert not backend.registry.functions
