"""Spans of jobs for whoever collects them by OpenTelemetry: a span a job, and one for each stage.

They are written when a job has ended, from the times of its result: no code of a job knows of them.
"""

from __future__ import annotations

import time

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from handler.result import Failure, Result, Success, Worker

#: A platform may freeze the worker after its answer, so spans are sent before; not at any price.
FLUSH_SECONDS = 2.0
NANOSECONDS = 1_000_000_000


class Spans:
    """Turns results into spans."""

    def __init__(self, exporter: SpanExporter, worker: Worker) -> None:
        """Send them through ``exporter``, in the name of a worker."""
        resource = Resource.create(
            {
                "service.name": "musetalk-worker",
                "service.version": worker.version,
                "service.instance.id": worker.worker_id,
                "musetalk.engine": worker.engine,
            }
        )
        # Sent at the end of each job: the end of the process need not wait for any.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("musetalk-worker")

    def __call__(self, result: Result, seconds: float) -> None:
        """Send the spans of a job that has just ended after ``seconds``."""
        end = time.time_ns()
        start = end - int(seconds * NANOSECONDS)
        whole = self._tracer.start_span("job", start_time=start)
        whole.set_attribute("musetalk.job_id", result.musetalk_job_id or "")
        inside = trace.set_span_in_context(whole)
        for stage, spent in _stages(result).items():
            span = self._tracer.start_span(stage, context=inside, start_time=start)
            start += int(spent * NANOSECONDS)
            span.end(start)
        if isinstance(result, Failure):
            last = self._tracer.start_span(result.stage, context=inside, start_time=start)
            last.set_status(trace.StatusCode.ERROR, result.error_code)
            last.end(end)
            whole.set_attribute("error.type", result.error_code)
            whole.set_status(trace.StatusCode.ERROR, result.error_message)
        whole.end(end)
        self._provider.force_flush(int(FLUSH_SECONDS * 1000))


def _stages(result: Result) -> dict[str, float]:
    """Return the seconds of the stages that ended, in their order."""
    if isinstance(result, Success) and result.replayed:
        # Those of another day.
        return {}
    return result.stage_times if isinstance(result, Failure) else result.metrics.stage_times
