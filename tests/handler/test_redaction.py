import json
import string
from typing import Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import Failure, WorkerBroken, handle
from handler.errors import FetchFailed, OutOfMemory, SourceUnavailable, StoreFailed
from handler.redaction import redact, redact_all
from handler.testing import FakeAvatar, FakeEngine, FakeFetch, fake_runtime

SECRET = "hunter2"
SIGNED = f"https://user:{SECRET}@example.com/video.mp4?X-Amz-Signature={SECRET}#{SECRET}"

#: What RFC 3986 allows in the part of a URL, escapes apart.
UNRESERVED = string.ascii_letters + string.digits + "-._~"
SUB_DELIMITERS = "!$&'()*+,;="
queries = st.text(UNRESERVED + SUB_DELIMITERS + ":@/?", max_size=30)
users = st.text(UNRESERVED + SUB_DELIMITERS + ":", max_size=30)


class WarningEngine(FakeEngine):
    def prepare(self, *args: Any) -> FakeAvatar:
        super().prepare(*args)
        return FakeAvatar(warnings=(f"Half the faces of {SIGNED} look away.",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.com/v.mp4?sig=1", "https://example.com/v.mp4"),
        ("https://example.com/v.mp4#part", "https://example.com/v.mp4"),
        ("https://example.com?sig=1", "https://example.com"),
        ("https://user:word@example.com/v.mp4", "https://example.com/v.mp4"),
        ("https://user@example.com:8443/v.mp4?", "https://example.com:8443/v.mp4"),
        ("https://[::1]:80/v?sig=1", "https://[::1]:80/v"),
        ("S3://key:secret@bucket/clip.mp4", "S3://bucket/clip.mp4"),
        ("GET https://a.example/v?sig=1 failed", "GET https://a.example/v failed"),
        (
            "https://a.example/v?a=1 or ftp://b.example/w?b=2",
            "https://a.example/v or ftp://b.example/w",
        ),
        ("the mail of user@example.com? No.", "the mail of user@example.com? No."),
        ("", ""),
    ],
)
def test_a_url_is_kept_up_to_its_query(text: str, expected: str) -> None:
    told = redact(text)

    assert told == expected


@pytest.mark.parametrize(
    "text",
    [
        f"<https://example.com/v?sig={SECRET}>",
        f"url='https://example.com/v?sig={SECRET}', status=403",
        f'{{"url": "https://example.com/v?sig={SECRET}"}}',
        f"(see https://example.com/v?sig={SECRET})",
        f"https://example.com/v?next=https://u:{SECRET}@b.example/?sig={SECRET}",
        f"https://example.com/v?sig=a'{SECRET}",
        f"https://example.com/v?sig=(a){SECRET}",
        f"https://user:p@{SECRET}@example.com/v",
        f"https://user:p'{SECRET}@example.com/v",
    ],
)
def test_no_way_to_write_a_url_lets_its_secret_through(text: str) -> None:
    told = redact(text)

    assert SECRET not in told
    assert "example.com" in told


@given(query=queries, user=users)
def test_of_any_url_neither_query_nor_user_remains(query: str, user: str) -> None:
    url = f"https://{user}@example.com/v.mp4?{query}"

    told = redact(f"Cannot read {url} now.")

    assert told == "Cannot read https://example.com/v.mp4 now."


@given(text=st.text().filter(lambda text: "://" not in text))
def test_a_text_without_a_url_stays_as_it_is(text: str) -> None:
    told = redact(text)

    assert told == text


def test_every_string_of_a_nest_is_redacted_and_all_else_is_kept() -> None:
    nest = {"a": [SIGNED, 7, None, True], "b": {"c": (SIGNED, 0.5)}}

    told = redact_all(nest)

    clean = "https://example.com/video.mp4"
    assert told == {"a": [clean, 7, None, True], "b": {"c": [clean, 0.5]}}


@pytest.mark.parametrize("engine", [FakeEngine(), WarningEngine()])
def test_a_success_tells_no_secret_of_the_jobs_urls(
    job: dict[str, Any], engine: FakeEngine
) -> None:
    files = {SIGNED: b"a face", job["audio_url"]: b"a voice"}
    runtime = fake_runtime(fetch=FakeFetch(files), engine=engine)

    result = handle(job | {"video_url": SIGNED}, runtime)

    assert result.status == "success"
    assert SECRET not in json.dumps(result.to_json())


@pytest.mark.parametrize(
    "fault",
    [
        SourceUnavailable(f"{SIGNED} is gone.", url=SIGNED, hops=[SIGNED], last={"url": SIGNED}),
        FetchFailed(f"{SIGNED} hung up.", url=SIGNED, reason=f"reset by {SIGNED}"),
        StoreFailed(f"Cannot PUT to {SIGNED}.", url=SIGNED),
        OutOfMemory(f"{SIGNED} is too large."),
        ValueError(f"bad url: '{SIGNED}'"),
        KeyError(SIGNED),
    ],
)
def test_a_failure_tells_no_secret_of_the_jobs_urls(job: dict[str, Any], fault: Exception) -> None:
    def fetch(*_: object) -> Never:
        raise fault from ConnectionError(f"while reading {SIGNED}")

    result = handle(job | {"video_url": SIGNED}, fake_runtime(fetch=fetch))

    assert isinstance(result, Failure)
    assert "example.com/video.mp4" in json.dumps(result.to_json())
    assert SECRET not in json.dumps(result.to_json())


def test_a_broken_worker_tells_no_secret_either(job: dict[str, Any]) -> None:
    fault = WorkerBroken(f"The GPU died over {SIGNED}.")
    runtime = fake_runtime(engine=FakeEngine(fault=fault))

    with pytest.raises(WorkerBroken) as caught:
        handle(job, runtime)

    assert SECRET not in json.dumps(caught.value.failure.to_json())


@pytest.mark.parametrize(
    "url",
    [
        f"https:/example.com/video.mp4?token={SECRET}",
        f"https:example.com/video.mp4?token={SECRET}",
        f"file:/video.mp4?token={SECRET}",
    ],
)
def test_a_mistyped_url_keeps_its_secret_too(job: dict[str, Any], url: str) -> None:
    result = handle(job | {"video_url": url}, fake_runtime())

    assert isinstance(result, Failure)
    assert SECRET not in json.dumps(result.to_json())
