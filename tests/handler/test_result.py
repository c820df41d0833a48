import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from handler import ErrorType, Failure, Stage, Success, handle, read_result
from handler.testing import FakeFetch, fake_runtime


@pytest.mark.parametrize(
    ("name", "kind"),
    [("success", Success), ("media_error", Failure), ("processing_error", Failure)],
)
def test_the_contracts_results_survive_the_trip_unchanged(
    contract: Callable[[str], dict[str, Any]], name: str, kind: type
) -> None:
    wire = contract(name)

    result = read_result(wire)

    assert isinstance(result, kind)
    assert result.model_dump(mode="json", exclude_unset=True) == wire


@pytest.mark.parametrize("fetch", [FakeFetch({}), None])
def test_what_a_job_answers_can_be_read_back(job: dict[str, Any], fetch: FakeFetch | None) -> None:
    runtime = fake_runtime(**({"fetch": fetch} if fetch else {}))

    result = handle(job, runtime)

    assert read_result(json.loads(json.dumps(result.to_json()))) == result


def test_the_contracts_job_gets_the_contracts_success(
    job: dict[str, Any], contract: Callable[[str], dict[str, Any]]
) -> None:
    expected = contract("success")

    result = handle(job, fake_runtime()).to_json()

    assert expected.keys() <= result.keys()
    assert expected["metrics"].keys() <= result["metrics"].keys()
    assert result["metrics"]["stage_times"].keys() == expected["metrics"]["stage_times"].keys()
    assert result["status"] == "success"
    assert result["musetalk_job_id"] == "job-123"
    assert result["output_url"] == "memory://job-123.mp4"
    assert result["metrics"]["PEAK_RAM_KB"] is None


def test_a_success_has_all_that_was_added_to_the_contract(job: dict[str, Any]) -> None:
    note = {"user": 7}

    result = handle(job | {"metadata": note}, fake_runtime()).to_json()

    assert result["error"] is None
    assert result["warnings"] == []
    assert result["metadata"] == note
    assert result["replayed"] is False
    assert result["metrics"]["frames"] == 25
    assert result["metrics"]["avatar_cache"] == "miss"
    assert result["metrics"]["attempts"] == {"video": 1, "audio": 1, "upload": 1}
    assert result["metrics"].keys() >= {"batch_size", "engine_times"}
    assert result["worker"].keys() == {
        "contract",
        "version",
        "git_commit",
        "image_digest",
        "image_id",
        "lock_sha256",
        "engine",
        "weights",
        "torch",
        "cuda",
        "face_tracker",
        "ffmpeg",
        "isolation",
        "worker_id",
        "provider",
        "cold_start_sec",
    }
    assert result["output"].keys() == {
        "width",
        "height",
        "fps",
        "frames",
        "duration",
        "bytes",
        "sha256",
        "video_codec",
        "audio_codec",
    }
    assert re.fullmatch(r"\d+/\d+", result["output"]["fps"])


@pytest.mark.parametrize(
    ("error_type", "status"),
    [
        ("media_error", 422),
        ("processing_error", 500),
        ("unknown_error", 500),
        ("cancelled", 499),
    ],
)
def test_a_failure_knows_its_http_status(error_type: str, status: int) -> None:
    failure = Failure(
        error_type=error_type, error_message="Broken.", stage=Stage.UNKNOWN, retryable=False
    )

    assert failure.http_status == status


def test_every_type_of_error_has_an_http_status() -> None:
    failures = [
        Failure(error_type=kind, error_message="Broken.", stage=Stage.UNKNOWN, retryable=False)
        for kind in ErrorType
    ]

    statuses = [failure.http_status for failure in failures]

    assert set(statuses) == {422, 499, 500}


def test_a_failure_without_a_stack_trace_does_not_mention_one() -> None:
    failure = Failure(
        error_type="media_error", error_message="Gone.", stage="download", retryable=False
    )

    wire = failure.to_json()

    assert "stack_trace" not in wire


@pytest.mark.parametrize("name", ["success", "media_error", "processing_error"])
def test_a_field_that_a_later_worker_adds_is_no_trouble_to_readers(
    contract: Callable[[str], dict[str, Any]], name: str
) -> None:
    wire = contract(name)

    result = read_result(wire | {"carbon_footprint": 0.3})

    assert result == read_result(wire)


@pytest.mark.parametrize("wire", [{}, [], None, "success", {"status": "succeeded"}])
def test_what_is_no_result_is_not_read_as_one(wire: object) -> None:
    with pytest.raises(ValidationError):
        read_result(wire)


def test_a_result_cannot_be_changed_once_it_is_given(job: dict[str, Any]) -> None:
    result = handle(job, fake_runtime())

    with pytest.raises(ValidationError):
        result.output_url = "https://example.com/another.mp4"
