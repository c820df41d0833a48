"""Deploying to RunPod: once, again, with changes, and against everything that is in the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.build_scripts import Done, run_script
from tests.runpod_rest import KEY, RunpodRest, reply

SECRET = "K005-application-key"
ENV = f"""\
# The worker's bucket.
B2_KEY_ID=0051234
B2_APP_KEY={SECRET}
B2_BUCKET_NAME=videos

JOB_TIMEOUT_SEC=600
WEBHOOK_SECRET={{{{ RUNPOD_SECRET_webhook }}}}
HF_TOKEN=hf_not_known_to_the_worker
"""
IMAGE = "registry.example:5000/musetalk-worker:1.2.0"

Deploy = Callable[..., Done]


@pytest.fixture
def runpod() -> Iterator[RunpodRest]:
    with RunpodRest() as runpod:
        yield runpod


@pytest.fixture
def deploy(runpod: RunpodRest, tmp_path: Path) -> Deploy:
    """Return what runs the script; secrets must never show in what it prints."""
    env_file = tmp_path / "worker.env"
    env_file.write_text(ENV)

    def run(*words: str, key: str | None = KEY, image: str = IMAGE) -> Done:
        given = ("--image", image, "--env-file", str(env_file), "--api", runpod.url)
        env = {"RUNPOD_API_KEY": key} if key else {}
        done = run_script("deploy_runpod", *given, *words, **env)
        for secret in (KEY, SECRET, "hf_not_known"):
            assert secret not in done.stdout + done.stderr
        return done

    return run


def test_a_first_deployment_creates_a_template_and_an_endpoint_of_it(
    deploy: Deploy, runpod: RunpodRest
) -> None:
    done = deploy("--network-volume", "vol-1", "--workers-max", "5")

    assert done.returncode == 0, done.stderr
    endpoint = runpod.endpoint
    assert runpod.template["image"] == endpoint["image"] == IMAGE
    assert endpoint["args"] == "runpod"
    assert endpoint["env"]["B2_APP_KEY"] == SECRET
    assert endpoint["env"]["WEBHOOK_SECRET"] == "{{ RUNPOD_SECRET_webhook }}"
    assert endpoint["env"]["PROVIDER"] == "runpod"
    assert endpoint["workers"] == {"min": 0, "max": 5, "idleTimeout": 5}
    assert endpoint["networkVolumes"] == ["vol-1"]
    # A job that takes too long is answered by the worker, for which RunPod has to wait.
    assert endpoint["timeout"] == 630_000
    assert done.stdout.splitlines() == [
        f"templates/{runpod.template['id']}: created",
        f"serverless/{endpoint['id']}: created",
    ]


def test_a_second_one_with_nothing_new_sends_nothing(deploy: Deploy, runpod: RunpodRest) -> None:
    deploy()
    known = len(runpod.changes)
    # RunPod keeps what it was told in an order of its own.
    runpod.endpoint["gpu"]["pools"].reverse()

    again = deploy()

    assert (again.returncode, len(runpod.changes)) == (0, known)
    assert [line.partition(": ")[2] for line in again.stdout.splitlines()] == [
        "as it should be",
        "as it should be",
    ]


def test_a_new_image_reaches_both_and_nothing_else_is_touched(
    deploy: Deploy, runpod: RunpodRest
) -> None:
    deploy()
    env = runpod.template["env"]
    image = "registry.example:5000/musetalk-worker@sha256:" + "0" * 64

    done = deploy(image=image)

    assert done.returncode == 0, done.stderr
    assert runpod.template["image"] == runpod.endpoint["image"] == image
    template, endpoint = runpod.changes[-2:]
    assert template.body == {"image": image, "env": {**env, "IMAGE_DIGEST": image}}
    assert endpoint.body == {"templateId": runpod.template["id"]}


def test_only_what_differs_is_changed(deploy: Deploy, runpod: RunpodRest) -> None:
    deploy()

    deploy("--gpu", "AMPERE_24", "--scaler", "REQUEST_COUNT", "--scaler-value", "2")

    (change,) = runpod.changes[2:]
    assert change.method == "PATCH"
    assert change.body["gpu"]["pools"] == ["AMPERE_24"]
    assert change.body["scaling"] == {"type": "REQUEST_COUNT", "requestCount": 2}
    assert change.body.keys() == {"gpu", "scaling"}


def test_what_somebody_changed_in_the_console_is_put_right(
    deploy: Deploy, runpod: RunpodRest
) -> None:
    deploy()
    runpod.endpoint["env"] = {**runpod.endpoint["env"], "MUSETALK_ENGINE": "preview"}
    runpod.endpoint["workers"]["max"] = 30

    deploy()

    assert "MUSETALK_ENGINE" not in runpod.endpoint["env"]
    assert runpod.endpoint["workers"]["max"] == 3


def test_a_dry_run_prints_every_request_and_sends_none(deploy: Deploy, runpod: RunpodRest) -> None:
    done = deploy("--dry-run")

    assert (done.returncode, runpod.changes) == (0, [])
    assert f"POST {runpod.url}/templates\n" in done.stdout
    assert f"POST {runpod.url}/serverless\n" in done.stdout
    assert '"B2_APP_KEY": "********"' in done.stdout
    assert '"HF_TOKEN": "********"' in done.stdout
    assert '"B2_BUCKET_NAME": "videos"' in done.stdout
    assert "{{ RUNPOD_SECRET_webhook }}" in done.stdout


def test_a_dry_run_prints_what_is_really_sent_then(deploy: Deploy, runpod: RunpodRest) -> None:
    deploy()
    words = ("--workers-max", "9")

    shown = deploy("--dry-run", *words).stdout
    deploy(*words)

    (change,) = runpod.changes[2:]
    request = shown.partition(f"PATCH {runpod.url}/serverless/{runpod.endpoint['id']}\n")[2]
    assert json.loads(request) == change.body


def test_a_dry_run_without_a_key_shows_a_first_deployment(
    deploy: Deploy, runpod: RunpodRest
) -> None:
    done = deploy("--dry-run", key=None)

    assert (done.returncode, runpod.asked) == (0, [])
    assert done.stdout.count("POST ") == 2


def test_a_key_that_is_none_is_said_to_be_none(deploy: Deploy, runpod: RunpodRest) -> None:
    missing, wrong = deploy(key=None), deploy(key="rpa_other")

    assert (missing.returncode, wrong.returncode) == (2, 1)
    assert "RUNPOD_API_KEY must be set" in missing.stderr
    assert "401" in wrong.stderr
    assert "make one in the console" in wrong.stderr
    assert runpod.changes == []


def problem(status: int) -> Callable[[BaseHTTPRequestHandler], None]:
    """Refuse in RunPod's words, with a secret of the caller's among them."""
    said = {"title": "No", "status": status, "detail": f"no, {SECRET}"}
    return partial(reply, status=status, text=json.dumps(said))


@pytest.mark.parametrize(
    ("status", "advice"),
    [(403, "read and write"), (404, "run this again"), (429, "minute"), (500, "later")],
)
def test_a_refusal_is_told_with_what_to_do(
    deploy: Deploy, runpod: RunpodRest, status: int, advice: str
) -> None:
    runpod.troubles.append(problem(status))

    done = deploy()

    assert done.returncode == 1
    assert f"RunPod answers {status}, no, ********." in done.stderr
    assert advice in done.stderr
    assert "is done" not in done.stderr


def test_what_was_done_before_a_refusal_is_not_hidden(deploy: Deploy, runpod: RunpodRest) -> None:
    template = runpod.add("templates", name="musetalk-worker")
    runpod.troubles.append(lambda handler: reply(handler, 200, json.dumps(runpod.template)))
    runpod.troubles.append(problem(500))

    done = deploy()

    assert done.returncode == 1
    assert f"templates/{template}: image, " in done.stdout
    assert "What is told above is done; the same command goes on." in done.stderr


def test_what_runpod_does_not_understand_is_named(deploy: Deploy, runpod: RunpodRest) -> None:
    done = deploy("--gpu", "RTX_9090")

    assert done.returncode == 1
    assert "422, Request validation failed.; $.gpu.pools[0]" in done.stderr
    # The template stays, is told of, and is found when the mistake is mended.
    assert f"templates/{runpod.template['id']}: created" in done.stdout
    assert deploy().returncode == 0
    assert runpod.endpoint["image"] == runpod.template["image"]


def stands_still(runpod: RunpodRest, _: BaseHTTPRequestHandler) -> None:
    runpod.over.wait(10)


def hangs_up(_: RunpodRest, handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


@pytest.mark.parametrize("trouble", [stands_still, hangs_up])
def test_without_an_answer_nobody_knows_and_the_next_run_finds_out(
    deploy: Deploy,
    runpod: RunpodRest,
    trouble: Callable[[RunpodRest, BaseHTTPRequestHandler], None],
) -> None:
    runpod.troubles.append(partial(trouble, runpod))

    lost = deploy("--patience", "0.5")
    found = deploy()

    assert (lost.returncode, found.returncode) == (1, 0)
    assert "Whether it was done is not known" in lost.stderr


def a_page(handler: BaseHTTPRequestHandler) -> None:
    reply(handler, 200, "<html>Welcome</html>")


def a_gateway(handler: BaseHTTPRequestHandler) -> None:
    reply(handler, 502, "<html>Bad Gateway</html>")


@pytest.mark.parametrize("trouble", [a_page, a_gateway])
def test_something_else_than_runpod_is_no_traceback(
    deploy: Deploy, runpod: RunpodRest, trouble: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    runpod.troubles.append(trouble)

    done = deploy()

    assert done.returncode == 1
    assert runpod.things["templates"] == {}


def test_the_key_goes_nowhere_else(deploy: Deploy, runpod: RunpodRest) -> None:
    elsewhere = f"{runpod.url}/elsewhere"
    runpod.troubles.append(lambda handler: reply(handler, 302, "", Location=elsewhere))

    done = deploy()

    assert done.returncode == 1
    assert "302" in done.stderr
    assert not any("elsewhere" in asked.path for asked in runpod.asked)


def test_of_two_endpoints_with_the_name_none_is_touched(deploy: Deploy, runpod: RunpodRest) -> None:
    twins = [runpod.add("serverless", name="musetalk-worker", type="QUEUE") for _ in range(2)]

    done = deploy()

    assert done.returncode == 1
    assert all(twin in done.stderr for twin in twins)
    assert [change.path for change in runpod.changes] == ["/v2/templates"]


def test_an_endpoint_without_a_queue_is_not_taken_over(deploy: Deploy, runpod: RunpodRest) -> None:
    runpod.add("serverless", name="musetalk-worker", type="LOAD_BALANCER")

    done = deploy()

    assert done.returncode == 1
    assert "no queue" in done.stderr


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("BATCH_SIZE=many", "BATCH_SIZE"),
        ("B2_BUCKET_NAME", "line 2"),
        ("B2_KEY_ID=1", "B2_APP_KEY"),
    ],
)
def test_settings_that_no_worker_would_start_with_are_not_sent(
    deploy: Deploy, runpod: RunpodRest, tmp_path: Path, line: str, named: str
) -> None:
    (tmp_path / "worker.env").write_text(f"# Mine.\n{line}\n")

    done = deploy()

    assert (done.returncode, runpod.asked) == (2, [])
    assert named in done.stderr


@pytest.mark.parametrize("image", ["musetalk-worker", "registry.example:5000/worker:latest"])
def test_an_image_that_may_change_under_its_name_is_refused(
    deploy: Deploy, runpod: RunpodRest, image: str
) -> None:
    done = deploy(image=image)

    assert (done.returncode, runpod.asked) == (2, [])
    assert "name a version or a digest" in done.stderr
