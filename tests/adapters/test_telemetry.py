"""Spans of jobs, as a collector gets them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from adapters.telemetry import Spans
from handler import Result, Runtime, handle
from handler.testing import FakeClock, FakeEngine, fake_runtime

SECOND = 1_000_000_000  # nanoseconds


class Collector(ThreadingHTTPServer):
    """Takes what is sent to it, as any OpenTelemetry collector does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.requests: list[ExportTraceServiceRequest] = []
        #: Cleared, the collector takes a request and says nothing.
        self.answers = threading.Event()
        self.answers.set()

    @property
    def spans(self) -> dict[str, Span]:
        """Return what has come, by name."""
        scopes = (
            scope
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
        )
        return {span.name: span for scope in scopes for span in scope.spans}


class _Take(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.server.answers.wait()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.answers.set()
        collector.shutdown()
        thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def send(collector: Collector, result: Result, runtime: Runtime, seconds: float) -> None:
    url = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    exporter = OTLPSpanExporter(endpoint=url, compression=None, timeout=0.5)
    Spans(exporter, runtime.worker)(result, seconds)


def lasted(span: Span) -> float:
    """Return how many seconds a span says that it took."""
    return (span.end_time_unix_nano - span.start_time_unix_nano) / SECOND


def test_a_job_is_a_span_and_each_of_its_stages_one_within(
    job: dict[str, Any], collector: Collector
) -> None:
    clock = FakeClock()
    runtime = fake_runtime(clock=clock, engine=FakeEngine(clock=clock, seconds=3))

    send(collector, handle(job, runtime), runtime, 6.0)

    spans = collector.spans
    whole = spans.pop("job")
    assert set(spans) == {"download", "validation", "inference", "upload"}
    assert {span.parent_span_id for span in spans.values()} == {whole.span_id}
    assert lasted(whole) == pytest.approx(6)
    assert lasted(spans["inference"]) == pytest.approx(6)
    assert whole.status.code == Status.STATUS_CODE_UNSET


def test_an_answer_from_the_record_has_no_stages(job: dict[str, Any], collector: Collector) -> None:
    runtime = fake_runtime()
    handle(job, runtime)

    send(collector, handle(job, runtime), runtime, 0.1)

    assert set(collector.spans) == {"job"}


def test_the_span_of_a_job_that_failed_says_where_and_why(
    job: dict[str, Any], collector: Collector
) -> None:
    runtime = fake_runtime(engine=FakeEngine(fault=RuntimeError("what now?")))

    send(collector, handle(job, runtime), runtime, 1.0)

    assert collector.spans["inference"].status.message == "unknown_error"
    assert collector.spans["job"].status.code == Status.STATUS_CODE_ERROR


def test_a_collector_that_does_not_answer_holds_no_job_up_for_long(job: dict[str, Any]) -> None:
    runtime = fake_runtime()

    with collecting() as collector:
        collector.answers.clear()
        send(collector, handle(job, runtime), runtime, 1.0)

    assert collector.requests
