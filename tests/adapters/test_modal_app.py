"""The deployment for Modal: real client, real containers, against a Modal on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from modal._serialization import serialize
from modal_proto import api_pb2
from modal_proto.api_pb2 import GenericResult

import modal_app
from adapters import __version__
from adapters.config import Config
from adapters.http.access import open_listener, url_of
from adapters.http_server import served_in_thread
from adapters.modal_web import web_app
from tests.adapters.transfer.loopback import Handler, body, serving
from tests.dockerfile import read_stages
from tests.drive_modal import APP, BUCKET, NAME, ModalDoor
from tests.modal_backend import ModalBackend

WORKER = "Worker.*"
TIMEOUT = GenericResult.GENERIC_STATUS_TIMEOUT
INTERNAL_FAILURE = GenericResult.GENERIC_STATUS_INTERNAL_FAILURE
TERMINATED = GenericResult.GENERIC_STATUS_TERMINATED
FAILURE = GenericResult.GENERIC_STATUS_FAILURE
#: What is said of a job whose container failed it.
LOST = ("processing_failed", True)
REPOSITORY = APP.parent


class Library:
    """A site that has a face and a voice, and one face that it keeps back until told."""

    def __init__(self, face: Path, voice: Path) -> None:
        self.url = ""
        self.asked, self.released = threading.Event(), threading.Event()
        self._files = {"/face.mp4": face, "/held.mp4": face, "/voice.wav": voice}

    def answer(self, handler: Handler) -> None:
        if handler.path == "/held.mp4":
            self.asked.set()
            self.released.wait()
        file = self._files.get(handler.path)
        (body(file.read_bytes()) if file else body(b"", 404))(handler)

    def job(self, face: str = "face.mp4", **fields: Any) -> dict[str, Any]:
        urls = {"video_url": f"{self.url}/{face}", "audio_url": f"{self.url}/voice.wav"}
        return urls | fields

    def hold(self) -> None:
        self.asked.clear()
        self.released.clear()


@pytest.fixture(scope="module")
def library(face: Path, word: Path) -> Iterator[Library]:
    library = Library(face, word)
    with serving(library.answer) as site:
        library.url = site.url
        try:
            yield library
        finally:
            library.released.set()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalDoor]:
    with ModalDoor(tmp_path_factory.mktemp("modal")) as door:
        yield door


# -- what is deployed ------------------------------------------------------------------------------


def test_the_worker_is_deployed_with_all_that_it_needs(door: ModalDoor) -> None:
    function = door.backend.registry.function(WORKER)
    worker = function.definition

    gpus = [choice.resources.gpu_config.gpu_type for choice in function.choices]
    assert gpus == ["L40S", "A10", "L4", "A100-40GB"]
    assert (worker.timeout_secs, worker.startup_timeout_secs) == (7200, 1200)
    assert worker.retry_policy.retries == 1
    # One job at a time: taking one back must not end another.
    assert worker.max_concurrent_inputs <= 1
    assert worker.checkpointing_enabled
    assert not worker.experimental_options
    volumes = {m.mount_path: (m.volume_id, m.read_only) for m in worker.volume_mounts}
    assert volumes == {
        "/weights": ("vo-musetalk-weights", True),
        "/avatars": ("vo-musetalk-avatars", False),
        "/compiled": ("vo-musetalk-compiled", False),
    }
    assert set(worker.method_definitions) == {"handle", "events"}


def test_the_web_app_asks_for_a_token_and_for_no_gpu(door: ModalDoor) -> None:
    web = door.backend.registry.function("web").definition

    assert web.webhook_config.requires_proxy_auth
    assert web.webhook_config.type == api_pb2.WEBHOOK_TYPE_ASGI_APP
    assert not web.resources.gpu_config.gpu_type
    assert not web.secret_ids


def test_weights_are_fetched_without_a_gpu_into_the_volume_that_workers_read(
    door: ModalDoor,
) -> None:
    fetch = door.backend.registry.function("fetch_weights").definition

    volumes = {m.mount_path: (m.volume_id, m.read_only) for m in fetch.volume_mounts}
    assert volumes == {"/weights": ("vo-musetalk-weights", False)}
    assert not fetch.resources.gpu_config.gpu_type


@pytest.mark.parametrize("tag", [WORKER, "web", "fetch_weights"])
def test_all_sources_are_shipped_and_nothing_else(door: ModalDoor, tag: str) -> None:
    packages = ("handler", "inference", "adapters")
    sources = {path for package in packages for path in (REPOSITORY / package).rglob("*.py")}

    shipped = set(door.backend.registry.shipped(tag))

    wanted = {f"/root/{path.relative_to(REPOSITORY)}" for path in (APP, *sources)}
    assert shipped == wanted


def test_the_image_is_what_the_container_image_is_up_to_its_packages(door: ModalDoor) -> None:
    registry = door.backend.registry
    system, *_ = read_stages(REPOSITORY / "Dockerfile.serverless")

    image_id = registry.function(WORKER).definition.image_id
    first, *rest = registry.image_commands(image_id)

    assert first == f"FROM {system.base}"
    assert any(line.startswith("RUN apt-get install -y ffmpeg") for line in rest)
    installed = [line for line in rest if "pip install -r" in line]
    assert [("--require-hashes" in line, "--no-deps" in line) for line in installed] == [
        (True, True)
    ]
    lock = registry.image_files(image_id)["/.requirements.txt"]
    assert lock == (REPOSITORY / "build/image.lock").read_bytes()


def test_sources_alone_know_their_version() -> None:
    assert __version__ == version("musetalk-worker")


def test_a_secret_that_lacks_a_key_stops_the_deploy_and_the_key_is_named(tmp_path: Path) -> None:
    lacking = {name: "x" for name in BUCKET if name != "B2_APP_KEY"}

    with ModalBackend(tmp_path, {NAME: lacking}) as backend:
        deployed = backend.deploy(APP)

    assert deployed.returncode != 0
    assert "B2_APP_KEY" in deployed.stdout + deployed.stderr


def test_the_memory_of_the_gpu_is_snapshot_if_asked_for(tmp_path: Path) -> None:
    with ModalBackend(tmp_path, {NAME: BUCKET}) as backend:
        backend.deploy(APP, MUSETALK_GPU_SNAPSHOT="1")

    worker = backend.registry.function(WORKER).definition
    assert dict(worker.experimental_options) == {"enable_gpu_snapshot": "True"}
    # Containers read the same file, and must come to the same conclusion.
    assert backend.registry.env(WORKER)["MUSETALK_GPU_SNAPSHOT"] == "1"


# -- jobs ------------------------------------------------------------------------------------------


def test_a_job_comes_back_with_its_video(door: ModalDoor, library: Library) -> None:
    job_id = door.submit(library.job(metadata={"order": 7}))
    result = door.wait(job_id)

    assert result["status"] == "success", result
    assert (door.out / f"{job_id}.mp4").stat().st_size == result["output"]["bytes"]
    assert result["musetalk_job_id"] == job_id
    assert result["metadata"] == {"order": 7}
    container = door.backend.containers[0]
    assert (result["worker"]["worker_id"], container.snapshots) == (container.id, 1)


def test_events_end_with_the_result(door: ModalDoor, library: Library) -> None:
    *progress, result = door.events(library.job())

    assert progress[-1] == {"status": "running", "progress": 1.0, "phase": "completed"}
    assert result["status"] == "success"


def test_a_failed_job_is_a_value_that_modal_does_not_try_again(
    door: ModalDoor, library: Library
) -> None:
    job_id = door.submit(library.job("gone.mp4"))

    result = door.call(job_id).get(timeout=60)

    assert (result["status"], result["error_code"]) == ("failed", "download_failed")


def test_a_job_that_is_taken_back_frees_its_container_for_the_next(
    door: ModalDoor, library: Library
) -> None:
    library.hold()
    job_id = door.submit(library.job("held.mp4"))
    assert library.asked.wait(30)

    door.cancel(job_id)
    taken_back, next_job = door.wait(job_id), door.run(library.job("gone.mp4"))

    assert (taken_back["error_type"], taken_back["retryable"]) == ("cancelled", False)
    assert next_job["worker"]["worker_id"] == door.backend.containers[0].id
    assert not list(door.scratch.rglob("job-*"))


def test_a_job_whose_machine_is_taken_away_is_done_by_another(
    door: ModalDoor, library: Library
) -> None:
    library.hold()
    job_id = door.submit(library.job("held.mp4"))
    assert library.asked.wait(30)

    door.backend.preempt(WORKER)
    library.released.set()
    result = door.wait(job_id)

    first, second = [c for c in door.backend.containers if c.function.tag == WORKER]
    assert result["status"] == "success", result
    assert (result["musetalk_job_id"], result["worker"]["worker_id"]) == (job_id, second.id)
    assert (door.out / f"{job_id}.mp4").exists()
    assert not list(door.scratch.rglob("job-*"))
    assert first.returncode == 0


def test_a_container_that_is_no_longer_needed_keeps_what_it_learnt(
    door: ModalDoor, library: Library
) -> None:
    assert door.run(library.job())["status"] == "success"

    container = door.backend.retire(WORKER)

    commits = door.backend.registry.commits
    assert container.returncode == 0
    assert "container stops" in container.log
    assert min(commits["musetalk-avatars"], commits["musetalk-compiled"]) > 0


def test_a_wrong_setting_is_named_to_whoever_waits(tmp_path: Path, library: Library) -> None:
    with ModalDoor(tmp_path, BATCH_SIZE="many") as door:
        result = door.run(library.job())

    assert (result["error_type"], result["retryable"]) == ("processing_error", True)
    assert "BATCH_SIZE" in result["error_message"]


def test_the_class_runs_without_modal_too(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"OUTPUT_DIR": f"{tmp_path / 'out'}", "AVATAR_CACHE_DIR": f"{tmp_path / 'avatars'}"}
    network = {"ALLOW_HTTP": "true", "ALLOW_PRIVATE_HOSTS": "127.0.0.1"}
    for name, value in {"MUSETALK_ENGINE": "preview", **place, **network}.items():
        monkeypatch.setenv(name, value)

    with pytest.warns(UserWarning, match="executing locally"):
        result = modal_app.Worker().handle.local(library.job())

    assert result["status"] == "success", result


# -- the web ---------------------------------------------------------------------------------------


def test_over_http_a_job_is_handed_over_and_asked_for(door: ModalDoor, library: Library) -> None:
    library.hold()
    submitted = door.ask("POST", "/jobs", json=library.job("held.mp4"))
    assert library.asked.wait(30)
    where = submitted.headers["Location"]

    waiting = door.ask("GET", where)
    library.released.set()
    result = door.wait(submitted.json()["id"])
    done = door.ask("GET", where)

    assert (submitted.status_code, waiting.status_code) == (202, 202)
    assert waiting.json() == {"id": result["musetalk_job_id"], "status": "running"}
    assert (done.status_code, done.json()) == (200, result)


def test_over_http_a_failure_is_a_result_like_any_other(door: ModalDoor, library: Library) -> None:
    job_id = door.ask("POST", "/jobs", json=library.job("gone.mp4")).json()["id"]
    door.wait(job_id)

    answer = door.ask("GET", f"/jobs/{job_id}")

    assert (answer.status_code, answer.json()["error_code"]) == (200, "download_failed")


def test_over_http_a_job_is_taken_back(door: ModalDoor, library: Library) -> None:
    library.hold()
    job_id = door.ask("POST", "/jobs", json=library.job("held.mp4")).json()["id"]
    assert library.asked.wait(30)

    answer = door.ask("DELETE", f"/jobs/{job_id}")

    assert answer.status_code in {200, 202}
    assert door.wait(job_id)["error_type"] == "cancelled"


def test_over_http_a_job_that_has_ended_cannot_be_taken_back_any_more(
    door: ModalDoor, library: Library
) -> None:
    job_id = door.submit(library.job("gone.mp4"))
    result = door.wait(job_id)

    answers = [door.ask("DELETE", f"/jobs/{job_id}") for _ in range(2)]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, result)] * 2


@pytest.mark.parametrize(
    ("end", "code", "retryable"),
    [
        (GenericResult(status=TIMEOUT), "deadline_exceeded", True),
        (GenericResult(status=INTERNAL_FAILURE), "processing_failed", True),
        (GenericResult(status=TERMINATED), "cancelled", False),
        (GenericResult(status=FAILURE, data=serialize(ZeroDivisionError())), *LOST),
        (GenericResult(status=FAILURE, data=b"of a class that nobody knows"), *LOST),
        # Raised again in a poller, this once ended the web app, and the next one that was started.
        (GenericResult(status=FAILURE, data=serialize(SystemExit(3))), *LOST),
    ],
    ids=["too slow", "lost", "taken back", "raised", "raised the unknown", "left"],
)
def test_over_http_a_job_without_a_result_of_its_own_has_failed(
    door: ModalDoor, end: GenericResult, code: str, *, retryable: bool
) -> None:
    job_id = door.backend.calls.ended(end)

    answer = door.ask("GET", f"/jobs/{job_id}")

    failure = answer.json()
    assert (answer.status_code, failure["status"]) == (200, "failed")
    assert (failure["error_code"], failure["retryable"]) == (code, retryable)


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("POST", "FunctionMap"),
        ("GET", "FunctionGetOutputs"),
        ("DELETE", "FunctionCallCancel"),
    ],
)
def test_over_http_a_job_has_not_failed_because_modal_does_not_answer(
    door: ModalDoor, library: Library, method: str, call: str
) -> None:
    job_id = door.backend.calls.ended(GenericResult(status=TERMINATED))
    door.backend.cut_off.add(call)

    if method == "POST":
        answer = door.ask("POST", "/jobs", json=library.job())
    else:
        answer = door.ask(method, f"/jobs/{job_id}")
    door.backend.cut_off.clear()

    failure = answer.json()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert (failure["error_code"], failure["retryable"]) == ("worker_unavailable", True)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nonsense", 404, "not_found"),
        ("GET", "/jobs/a%2Fb", 404, "not_found"),
        ("PUT", "/jobs", 405, "method_not_allowed"),
    ],
)
def test_over_http_there_is_one_shape_for_whatever_is_refused(
    door: ModalDoor, method: str, path: str, status: int, code: str
) -> None:
    answer = door.ask(method, path)

    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


@pytest.mark.parametrize(
    ("sent", "field"), [(b"{", None), (b"[]", None), (b'{"video_url": 1}', "video_url")]
)
def test_over_http_what_is_no_job_wakes_no_gpu(
    door: ModalDoor, sent: bytes, field: str | None
) -> None:
    answer = door.ask("POST", "/jobs", data=sent)

    failure = answer.json()
    assert answer.status_code == 422
    assert (failure["error_code"], failure["details"]["field"]) == ("invalid_job", field)


@pytest.mark.parametrize(
    ("method", "job_id", "status", "code"),
    [
        ("GET", "fc-0000", 410, "result_expired"),
        ("DELETE", "fc-0000", 404, "job_unknown"),
        ("GET", "nonsense", 404, "job_unknown"),
    ],
)
def test_over_http_a_job_that_is_not_there_is_said_to_be_so(
    door: ModalDoor, method: str, job_id: str, status: int, code: str
) -> None:
    answer = door.ask(method, f"/jobs/{job_id}")

    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


def test_over_http_a_bug_has_the_shape_of_any_failure_too(job: dict[str, Any]) -> None:
    async def stumble(job: Any) -> Any:
        raise ZeroDivisionError

    handle: Any = SimpleNamespace(spawn=SimpleNamespace(aio=stumble))
    with (
        open_listener(Config.from_env({"PORT": "0"})) as listener,
        served_in_thread(web_app(handle), listener),
    ):
        answer = requests.post(f"{url_of(listener)}/jobs", json=job, timeout=60)

    failure = answer.json()
    assert (answer.status_code, failure["error_code"]) == (500, "unknown_error")
    assert failure["musetalk_job_id"] == job["musetalk_job_id"]


def test_over_http_nobody_gets_in_without_the_token(door: ModalDoor) -> None:
    assert door.ask("GET", "/jobs/fc-1", token={}).status_code == 401
