"""What the HTTP door counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from handler.ports import Observe
from handler.result import Result, Success

#: Upper bounds, in seconds, of the classes that jobs are sorted into by how long they took.
JOB_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)


class Tally:
    """Count jobs by their end, and what they cost."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        """Count from nothing, apart from whatever else this process may count."""
        self._registry = registry = CollectorRegistry()
        self.ready = Gauge(
            "musetalk_worker_ready", "1 while the worker takes jobs.", registry=registry
        )
        self.running = Gauge("musetalk_jobs_running", "Jobs being worked on.", registry=registry)
        self.waiting = Gauge("musetalk_jobs_waiting", "Jobs that wait.", registry=registry)
        self._jobs = Counter(
            "musetalk_jobs",
            "Jobs that ended: success, replayed, or why not.",
            ["end"],
            registry=registry,
        )
        self._refused = Counter(
            "musetalk_refusals", "Requests refused, and why.", ["error_code"], registry=registry
        )
        self._stages = Counter(
            "musetalk_stage_seconds", "Time spent in each stage.", ["stage"], registry=registry
        )
        self._frames = Counter("musetalk_frames", "Frames delivered.", registry=registry)
        self._seconds = Histogram(
            "musetalk_job_seconds",
            "How long a job took that succeeded.",
            buckets=JOB_SECONDS,
            registry=registry,
        )

    def ended(self, result: Result) -> None:
        """Count one job."""
        if not isinstance(result, Success):
            self._jobs.labels(result.error_code).inc()
            return
        if result.replayed:
            # Its frames and seconds were counted when it was done.
            self._jobs.labels("replayed").inc()
            return
        metrics = result.metrics
        self._jobs.labels("success").inc()
        self._frames.inc(metrics.frames or 0)
        self._seconds.observe(metrics.total_time)
        for stage, spent in metrics.stage_times.items():
            self._stages.labels(stage).inc(spent)

    def observing(self, observe: Observe) -> Observe:
        """Return what counts a job that another door has done, and passes it on."""

        def count(result: Result, seconds: float) -> None:
            self.ended(result)
            observe(result, seconds)

        return count

    def refused(self, error_code: str) -> None:
        """Count one request that was not let in."""
        self._refused.labels(error_code).inc()

    def page(self) -> bytes:
        """Return what Prometheus reads."""
        return generate_latest(self._registry)
