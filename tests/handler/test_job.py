import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from handler import Job
from handler.errors import InvalidJob
from handler.job import METADATA_LIMIT_BYTES, SyncMode, job_id_of, with_job_id

SECRET = "hunter2"

#: Every text JSON can carry, lone surrogates included, and the numbers Python's reader adds.
texts = st.text(st.characters(), max_size=20)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
fields = st.sampled_from([*Job.model_fields, *Job.model_fields["params"].annotation.model_fields])

RANGES = {
    "bbox_shift": (-50, 50),
    "extra_margin": (0, 100),
    "left_cheek_width": (20, 160),
    "right_cheek_width": (20, 160),
    "fps": (1, 60),
    "batch_size": (1, 64),
    "crf": (0, 51),
}
LIMITS = [(name, limit) for name, limits in RANGES.items() for limit in limits]
BEYOND = [
    (name, value)
    for name, (low, high) in RANGES.items()
    for value in (low - 1, high + 1, float("nan"), 10**400)
]


def test_the_contracts_job_survives_the_trip_unchanged(job: dict[str, Any]) -> None:
    parsed = Job.parse(job)

    assert parsed.model_dump(mode="json", exclude_unset=True) == job


def test_a_job_with_every_field_survives_the_trip(job: dict[str, Any]) -> None:
    full = job | {
        "params": {"bbox_shift": -7, "parsing_mode": "neck", "fit": "pad", "fps": 29.97},
        "sync_mode": "remap",
        "output": {"put_url": "https://s.example/up", "get_url": "https://s.example/down"},
        "webhook_url": "https://example.com/hook",
        "deadline_seconds": 60,
        "metadata": {"user": {"id": 7, "tags": ["a", None, True]}},
    }

    parsed = Job.parse(full)

    assert parsed.model_dump(mode="json", exclude_unset=True) == full
    assert Job.parse(parsed.model_dump(mode="json")) == parsed


def test_a_job_that_says_only_what_it_must_gets_the_contracts_defaults() -> None:
    parsed = Job.parse({"video_url": "https://a.example/v", "audio_url": "https://a.example/a"})

    assert parsed.model_dump(mode="json", exclude={"musetalk_job_id"}) == {
        "video_url": "https://a.example/v",
        "audio_url": "https://a.example/a",
        "aspect_ratio": None,
        "resolution": None,
        "params": {
            "bbox_shift": 0,
            "extra_margin": 10,
            "parsing_mode": "jaw",
            "left_cheek_width": 90,
            "right_cheek_width": 90,
            "fps": 25,
            "batch_size": None,
            "fit": "keep",
            "crf": 18,
        },
        "sync_mode": "bounce",
        "output": None,
        "webhook_url": None,
        "deadline_seconds": None,
        "metadata": {},
    }


def test_a_job_cannot_be_changed_once_it_is_read(job: dict[str, Any]) -> None:
    parsed = Job.parse(job)

    with pytest.raises(ValidationError):
        parsed.video_url = "https://example.com/another.mp4"


def test_jobs_without_an_id_get_ids_of_their_own(job: dict[str, Any]) -> None:
    del job["musetalk_job_id"]

    first, second = Job.parse(job), Job.parse(job)

    assert first.musetalk_job_id != second.musetalk_job_id
    assert job_id_of(first.model_dump()) == first.musetalk_job_id


@pytest.mark.parametrize("job_id", ["a", "a" * 200, "AZaz09._:-", ".", "-x-", "urn:uuid:7"])
def test_a_legal_id_is_kept(job: dict[str, Any], job_id: str) -> None:
    parsed = Job.parse(job | {"musetalk_job_id": job_id})

    assert parsed.musetalk_job_id == job_id


@pytest.mark.parametrize(
    "job_id",
    ["", "a" * 201, "a/b", "a\\b", "..", "a..b", "../../etc", "a b", "a\n", "ä", "a%2fb", "a\0"],
)
def test_an_id_that_could_not_name_an_object_is_refused(job: dict[str, Any], job_id: str) -> None:
    bad = job | {"musetalk_job_id": job_id}

    assert refusal(bad).details["field"] == "musetalk_job_id"


@pytest.mark.parametrize("field", ["video_url", "audio_url"])
def test_a_job_without_its_media_is_refused_by_name(job: dict[str, Any], field: str) -> None:
    del job[field]

    error = refusal(job)

    assert error.details["field"] == field
    assert field in error.message


def test_a_misspelt_field_is_refused_by_name(job: dict[str, Any]) -> None:
    job["vidoe_url"] = job.pop("video_url")

    error = refusal(job)

    assert "vidoe_url" in error.message
    assert "video_url" in error.message


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"quality": "best"}, "quality"),
        ({"params": {"seed": 42}}, "params.seed"),
        ({"params": {"BBOX_SHIFT": 0}}, "params.BBOX_SHIFT"),
        ({"output": {"key": "a.mp4", "bucket": "mine"}}, "output.bucket"),
    ],
)
def test_an_unknown_field_is_refused_by_name(
    job: dict[str, Any], bad: dict[str, Any], named: str
) -> None:
    error = refusal(job | bad)

    assert error.details["field"] == named
    assert named in error.message


def test_every_fault_of_a_job_is_named_at_once(job: dict[str, Any]) -> None:
    bad = job | {"resolution": "huge", "sync_mode": "later", "params": {"crf": 52}}

    message = refusal(bad).message

    assert all(name in message for name in ("resolution", "sync_mode", "params.crf"))


@pytest.mark.parametrize("place", ["params", "output", None])
def test_a_body_of_countless_fields_is_not_searched_for_each_fault(
    job: dict[str, Any], place: str | None
) -> None:
    fields = {f"field-{number}": number for number in range(65)}

    with pytest.raises(InvalidJob, match=r"\d\d fields in one object"):
        Job.parse(job | ({place: fields} if place else fields))


def test_a_body_of_a_thousand_faults_gets_a_short_answer(job: dict[str, Any]) -> None:
    bad = job | {f"field_{number}_{'x' * 300}": number for number in range(1000)}

    message = refusal(bad).message

    assert len(message) < 2000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("musetalk_job_id", 123),
        ("musetalk_job_id", True),
        ("video_url", 7),
        ("video_url", ["https://example.com/video.mp4"]),
        ("audio_url", {"url": "https://example.com/audio.wav"}),
        ("aspect_ratio", 1.78),
        ("resolution", 720),
        ("params", []),
        ("params", "fast"),
        ("sync_mode", 1),
        ("output", "bucket"),
        ("webhook_url", False),
        ("deadline_seconds", "60"),
        ("deadline_seconds", True),
        ("metadata", []),
        ("metadata", "note"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_by_name(
    job: dict[str, Any], field: str, value: object
) -> None:
    error = refusal(job | {field: value})

    assert error.details["field"] == field
    assert field in error.message


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", ["10", True, [10], {"value": 10}])
def test_a_parameter_that_is_not_a_number_is_refused_by_name(
    job: dict[str, Any], name: str, value: object
) -> None:
    error = refusal(job | {"params": {name: value}})

    assert error.details["field"] == f"params.{name}"


@pytest.mark.parametrize(("name", "value"), LIMITS)
def test_a_parameter_may_go_to_its_limit(job: dict[str, Any], name: str, value: float) -> None:
    parsed = Job.parse(job | {"params": {name: value}})

    assert getattr(parsed.params, name) == value


@pytest.mark.parametrize(("name", "value"), BEYOND)
def test_a_parameter_beyond_its_limit_is_refused_by_name(
    job: dict[str, Any], name: str, value: float
) -> None:
    error = refusal(job | {"params": {name: value}})

    assert error.details["field"] == f"params.{name}"
    assert f"params.{name}" in error.message


@pytest.mark.parametrize("name", sorted(RANGES.keys() - {"fps"}))
def test_a_broken_count_of_pixels_is_refused(job: dict[str, Any], name: str) -> None:
    error = refusal(job | {"params": {name: 30.5}})

    assert error.details["field"] == f"params.{name}"


@pytest.mark.parametrize("fps", [23.976, 29.97, 59.94])
def test_a_broken_frame_rate_is_welcome(job: dict[str, Any], fps: float) -> None:
    parsed = Job.parse(job | {"params": {"fps": fps}})

    assert parsed.params.fps == fps


@pytest.mark.parametrize(
    ("name", "word"),
    [("parsing_mode", word) for word in ("jaw", "raw", "neck")]
    + [("fit", word) for word in ("keep", "pad", "crop")],
)
def test_every_word_of_a_parameter_is_understood(job: dict[str, Any], name: str, word: str) -> None:
    parsed = Job.parse(job | {"params": {name: word}})

    assert getattr(parsed.params, name) == word


@pytest.mark.parametrize("name", ["parsing_mode", "fit"])
@pytest.mark.parametrize("word", ["", "JAW", "Keep", "mouth", "plain text", 0])
def test_an_unknown_word_is_refused_by_name(job: dict[str, Any], name: str, word: object) -> None:
    error = refusal(job | {"params": {name: word}})

    assert error.details["field"] == f"params.{name}"


@pytest.mark.parametrize("word", ["bounce", "loop", "cut_off", "silence", "remap"])
def test_every_sync_mode_is_understood(job: dict[str, Any], word: str) -> None:
    parsed = Job.parse(job | {"sync_mode": word})

    assert parsed.sync_mode is SyncMode(word)


@pytest.mark.parametrize("word", ["", "Bounce", "cutoff", "cut-off", "stretch"])
def test_an_unknown_sync_mode_is_refused_with_the_known_ones(
    job: dict[str, Any], word: str
) -> None:
    error = refusal(job | {"sync_mode": word})

    assert error.details["field"] == "sync_mode"
    assert "cut_off" in error.message


@pytest.mark.parametrize("ratio", ["9:16", "16:9", "1:1", "239:100"])
def test_an_aspect_ratio_is_two_numbers(job: dict[str, Any], ratio: str) -> None:
    parsed = Job.parse(job | {"aspect_ratio": ratio})

    assert parsed.aspect_ratio == ratio


@pytest.mark.parametrize(
    "ratio", ["", "9x16", "9/16", "0:16", "9:0", "9:-16", "9:16:1", "1.78:1", " 9:16", "9:16\n"]
)
def test_anything_else_is_no_aspect_ratio(job: dict[str, Any], ratio: str) -> None:
    error = refusal(job | {"aspect_ratio": ratio})

    assert error.details["field"] == "aspect_ratio"


@pytest.mark.parametrize("resolution", ["720p", "1080p", "512x512", "1920x1080"])
def test_a_resolution_is_a_short_side_or_a_box(job: dict[str, Any], resolution: str) -> None:
    parsed = Job.parse(job | {"resolution": resolution})

    assert parsed.resolution == resolution


@pytest.mark.parametrize(
    "resolution",
    ["", "hd", "720", "p", "0p", "-720p", "512x", "x512", "0x512", "512*512", "720p\n"],
)
def test_anything_else_is_no_resolution(job: dict[str, Any], resolution: str) -> None:
    error = refusal(job | {"resolution": resolution})

    assert error.details["field"] == "resolution"


@pytest.mark.parametrize("url", ["", "video.mp4", "/etc/passwd", "//example.com/v", "https://a b"])
@pytest.mark.parametrize("field", ["video_url", "audio_url", "webhook_url"])
def test_what_is_no_url_is_refused_by_name(job: dict[str, Any], field: str, url: str) -> None:
    error = refusal(job | {field: url})

    assert error.details["field"] == field


@pytest.mark.parametrize("url", ["http://example.com/hook", "ftp://example.com", "file:///etc"])
def test_a_webhook_must_be_https(job: dict[str, Any], url: str) -> None:
    error = refusal(job | {"webhook_url": url})

    assert error.details["field"] == "webhook_url"


@pytest.mark.parametrize(
    "output",
    [
        {"key": "outputs/2025/clip.mp4"},
        {"key": "a" * 1000},
        {"put_url": "https://s.example/up?sig=1", "get_url": "https://s.example/down?sig=2"},
        {"key": "clip.mp4", "put_url": None, "get_url": None},
    ],
)
def test_an_output_is_a_key_or_a_pair_of_urls(job: dict[str, Any], output: dict[str, Any]) -> None:
    parsed = Job.parse(job | {"output": output})

    given = {name: value for name, value in output.items() if value is not None}
    assert parsed.output.model_dump(exclude_none=True) == given


@pytest.mark.parametrize(
    "output",
    [
        {},
        {"key": None},
        {"put_url": "https://s.example/up"},
        {"get_url": "https://s.example/down"},
        {"key": "clip.mp4", "put_url": "https://s.example/up"},
        {
            "key": "clip.mp4",
            "put_url": "https://s.example/up",
            "get_url": "https://s.example/down",
        },
        {"key": ""},
        {"key": "/clip.mp4"},
        {"key": "a/../../clip.mp4"},
        {"key": "a b.mp4"},
        {"key": "a" * 1001},
        {"put_url": "up", "get_url": "down"},
    ],
)
def test_any_other_output_is_refused(job: dict[str, Any], output: dict[str, Any]) -> None:
    error = refusal(job | {"output": output})

    assert error.details["field"].startswith("output")


@pytest.mark.parametrize("key", ["other-job.json", "a/b.JSON"])
def test_a_video_cannot_take_the_place_of_a_jobs_record(job: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidJob, match="must not end in"):
        Job.parse(job | {"output": {"key": key}})


def test_a_signature_with_a_sessions_token_is_not_too_long(job: dict[str, Any]) -> None:
    put_url = "https://bucket.example/v.mp4?X-Amz-Security-Token=".ljust(4096, "t")

    read = Job.parse(job | {"output": {"put_url": put_url, "get_url": "https://example.com/v"}})

    assert read.output is not None
    assert read.output.put_url == put_url


@pytest.mark.parametrize("given", [None, "own"])
def test_a_job_has_its_platforms_id_unless_it_brings_one(given: str | None) -> None:
    named = with_job_id({"musetalk_job_id": given, "video_url": "v"}, "platforms")

    assert named == {"musetalk_job_id": given or "platforms", "video_url": "v"}


@pytest.mark.parametrize("raw", [None, [], "job", 7])
def test_what_is_no_object_is_given_no_id(raw: object) -> None:
    assert with_job_id(raw, "platforms") is raw


@pytest.mark.parametrize("seconds", [1, 1.5, 86400])
def test_a_deadline_is_between_a_second_and_a_day(job: dict[str, Any], seconds: float) -> None:
    parsed = Job.parse(job | {"deadline_seconds": seconds})

    assert parsed.deadline_seconds == seconds


@pytest.mark.parametrize("seconds", [0, 0.999, -1, 86401, float("inf"), float("nan"), 10**400])
def test_any_other_deadline_is_refused(job: dict[str, Any], seconds: float) -> None:
    error = refusal(job | {"deadline_seconds": seconds})

    assert error.details["field"] == "deadline_seconds"


def test_metadata_of_16_kib_is_kept_as_it_is(job: dict[str, Any]) -> None:
    note = {"note": "x" * (METADATA_LIMIT_BYTES - len(json.dumps({"note": ""})))}

    parsed = Job.parse(job | {"metadata": note})

    assert METADATA_LIMIT_BYTES == 16 * 1024
    assert parsed.metadata == note


def test_metadata_of_one_byte_more_is_refused(job: dict[str, Any]) -> None:
    note = {"note": "x" * (METADATA_LIMIT_BYTES - len(json.dumps({"note": ""})) + 1)}

    error = refusal(job | {"metadata": note})

    assert error.details["field"] == "metadata"


def test_metadata_nested_without_end_is_refused(job: dict[str, Any]) -> None:
    nest: list[Any] = []
    for _ in range(10_000):
        nest = [nest]

    error = refusal(job | {"metadata": {"nest": nest}})

    assert error.details["field"].startswith("metadata")


@pytest.mark.parametrize("field", sorted(Job.model_fields.keys() - {"video_url", "audio_url"}))
def test_null_means_that_a_field_was_not_given(job: dict[str, Any], field: str) -> None:
    without = {name: value for name, value in job.items() if name != field}

    parsed = Job.parse(job | {field: None})

    assert parsed.model_dump(exclude={"musetalk_job_id"}) == Job.parse(without).model_dump(
        exclude={"musetalk_job_id"}
    )


@pytest.mark.parametrize("name", [*RANGES, "parsing_mode", "fit"])
def test_null_means_that_a_parameter_was_not_given(job: dict[str, Any], name: str) -> None:
    parsed = Job.parse(job | {"params": {name: None}})

    assert parsed.params == Job.parse(job).params


@pytest.mark.parametrize("field", ["video_url", "audio_url"])
def test_null_media_are_missing_media(job: dict[str, Any], field: str) -> None:
    error = refusal(job | {field: None})

    assert error.details["field"] == field


@pytest.mark.parametrize(
    "bad",
    [
        {"video_url": f"example.com/video.mp4?token={SECRET}"},
        {"audio_url": f"https://user:{SECRET}@example.com/ a.wav"},
        {"audio_url": f"https://example.com/{SECRET}" + "x" * 2048},
        {"webhook_url": f"hook?key={SECRET}"},
        {"musetalk_job_id": f"{SECRET}/.."},
        {"aspect_ratio": SECRET},
        {"resolution": SECRET},
        {"sync_mode": SECRET},
        {"deadline_seconds": SECRET},
        {"metadata": SECRET},
        {"metadata": {"key": SECRET * METADATA_LIMIT_BYTES}},
        {"params": SECRET},
        {"params": {"crf": SECRET}},
        {"params": {"parsing_mode": SECRET}},
        {"params": {"seed": SECRET}},
        {"output": SECRET},
        {"output": {"key": f"/{SECRET}"}},
        {"output": {"put_url": f"https://s.example/?sig={SECRET}"}},
        {"password": SECRET},
    ],
)
def test_a_refusal_never_repeats_what_it_refuses(job: dict[str, Any], bad: dict[str, Any]) -> None:
    error = refusal(job | bad)

    assert SECRET not in error.message
    assert SECRET not in json.dumps(error.details)
    assert error.__cause__ is None


@pytest.mark.parametrize("body", [None, [], "job", 7, True, [{"video_url": "https://a.example"}]])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    error = refusal(body)

    assert "JSON object" in error.message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"musetalk_job_id": "job-123", "nonsense": True}, "job-123"),
        ({"musetalk_job_id": "a/b"}, None),
        ({"musetalk_job_id": "a..b"}, None),
        ({"musetalk_job_id": 7}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_malformed_job_is_still_known_by_its_legal_id(body: object, expected: str | None) -> None:
    job_id = job_id_of(body)

    assert job_id == expected


@given(body=any_json | st.dictionaries(fields | texts, any_json, max_size=6))
def test_whatever_comes_in_is_a_job_or_an_invalid_job(body: object) -> None:
    outcome = outcome_of(lambda: Job.parse(body))

    assert isinstance(outcome, Job | InvalidJob)


@given(field=fields, value=any_json)
def test_whatever_stands_in_one_field_is_a_job_or_an_invalid_job(field: str, value: object) -> None:
    media = {"video_url": "https://a.example/v", "audio_url": "https://a.example/a"}
    body = media | ({field: value} if field in Job.model_fields else {"params": {field: value}})

    outcome = outcome_of(lambda: Job.parse(body))

    assert isinstance(outcome, Job | InvalidJob)


def outcome_of(parse: Callable[[], Job]) -> Job | InvalidJob:
    try:
        return parse()
    except InvalidJob as error:
        return error


def refusal(body: object) -> InvalidJob:
    with pytest.raises(InvalidJob) as caught:
        Job.parse(body)
    return caught.value
