"""Any sequence of deliveries, crashes and faults: the six invariants of the reliability notes.

(a) the URL of a returned result exists, and its checksum matches; (b) so does every other success
that was returned of a job; (c) a job has one record at most; (d) nothing is called a success that
is not on record; (e) every failure is a legal one; (f) a worker can then do a good job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from adapters.transfer.bucket import Bucket
from adapters.transfer.records import S3Records
from adapters.transfer.retry import Retry
from adapters.transfer.store import S3Store
from handler import Failure, Result, Runtime, Success, handle
from handler.errors import Cancelled, FetchFailed, OutOfMemory
from handler.progress import Progress
from handler.record import Record
from tests.delivery.memory_s3 import MemoryClient, MemoryS3, error
from tests.delivery.worker import JOB, OTHER_JOB, TakeEngine, identify, runtime_of

IDS = ("job-1", "job-2")
#: error_code -> (error_type, stage, retryable), the only failures that may come of these faults.
LEGAL = {
    "idempotency_conflict": {("processing_error", "validation", False)},
    "store_failed": {("processing_error", "upload", True)},
    "fetch_failed": {("processing_error", "download", True)},
    "out_of_memory": {("processing_error", "inference", True)},
    "cancelled": {
        ("cancelled", stage, False)
        for stage in ("download", "preprocessing", "inference", "postprocessing", "upload")
    },
}
#: More requests than a delivery makes.
REQUESTS = 16

jobs = st.builds(
    lambda job_id, job: job | {"musetalk_job_id": job_id},
    st.sampled_from(IDS),
    # The same id for other media is somebody's mistake, and seldom made.
    st.sampled_from([JOB, JOB, JOB, OTHER_JOB]),
)
moments = st.integers(0, REQUESTS)


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Trouble:
    """Does something once, before a worker's request of some number, or from there on."""

    at: int
    act: Callable[[], bool]
    for_ever: bool = False
    requests: int = field(default=-1, init=False)

    def __call__(self) -> bool:
        self.requests += 1
        due = self.requests >= self.at if self.for_ever else self.requests == self.at
        return due and self.act()


def die() -> bool:
    raise Killed


def be_busy() -> bool:
    raise error(503, "SlowDown")


def lose_the_answer() -> bool:
    return True


class Deliveries(RuleBasedStateMachine):
    @initialize(compares=st.booleans())
    def open_store(self, *, compares: bool) -> None:
        self.store = MemoryS3(compares)
        self.returned: list[Success] = []
        self.failed: list[Failure] = []
        #: Ids whose video B2 may have let be overwritten after somebody was told of it.
        self.contested: set[str] = set()

    @rule(job=jobs)
    def deliver(self, job: dict[str, Any]) -> None:
        self.run(job)

    @rule(job=jobs)
    def deliver_and_lose_the_result(self, job: dict[str, Any]) -> None:
        handle(job, self.worker())

    @rule(job=jobs, at=moments)
    def crash_at_a_request(self, job: dict[str, Any], at: int) -> None:
        self.crash(job, self.worker(Trouble(at, die)))

    @rule(job=jobs, fault=st.sampled_from([FetchFailed("no"), OutOfMemory("no"), Killed()]))
    def fail_or_crash_at_a_stage(self, job: dict[str, Any], fault: BaseException) -> None:
        def fetch(*_: Any) -> Any:
            raise fault

        if isinstance(fault, OutOfMemory):
            engine = TakeEngine()
            engine.fault = fault
            self.run(job, self.worker(engine=engine))
        else:
            self.crash(job, self.worker(fetch=fetch))

    @rule(job=jobs, at=moments, for_ever=st.booleans())
    def fail_at_the_store(self, job: dict[str, Any], at: int, *, for_ever: bool) -> None:
        self.run(job, self.worker(Trouble(at, be_busy, for_ever)))

    @rule(job=jobs, at=moments)
    def lose_an_answer_of_the_store(self, job: dict[str, Any], at: int) -> None:
        self.run(job, self.worker(Trouble(at, lose_the_answer)))

    @rule(job=jobs, at=st.integers(0, 40))
    def lose_the_lease(self, job: dict[str, Any], at: int) -> None:
        reports = iter(range(1000))

        def report(progress: Progress) -> None:
            if next(reports) == at:
                raise Cancelled("The job belongs to another worker.")

        self.run(job, self.worker(), report)

    @rule(job=jobs, rivals=jobs, at=moments, first=st.sampled_from([None, die, lose_the_answer]))
    def give_it_to_a_second_worker_meanwhile(
        self, job: dict[str, Any], rivals: dict[str, Any], at: int, first: Any
    ) -> None:
        """A second worker does a whole job between two requests of the first."""

        def rival() -> bool:
            self.contest(job, rivals)
            self.run(rivals)
            return bool(first and first())

        self.crash(job, self.worker(Trouble(at, rival)))

    @invariant()
    def every_success_that_was_returned_is_true(self) -> None:
        """(a) and (b)."""
        for success in self.returned:
            kept = self.store.objects[f"out/{success.musetalk_job_id}.mp4"].body
            if success.musetalk_job_id not in self.contested:
                assert hashlib.sha256(kept).hexdigest() == success.output.sha256
            assert kept.startswith(b"25;")

    @invariant()
    def a_job_has_one_record_and_no_scrap(self) -> None:
        """(c)"""
        legal = {f"out/{job_id}.{kind}" for job_id in IDS for kind in ("mp4", "json")}
        # Who is killed while trying what the store can do cannot clear that away.
        seen = {key for key in self.store.objects if ".probe-" not in key}
        assert seen <= legal

    @invariant()
    def every_success_that_was_returned_is_on_record(self) -> None:
        """(d)"""
        for success in self.returned:
            job_id = success.musetalk_job_id
            kept = self.store.objects[f"out/{job_id}.json"]
            record = Record.decode(kept.body, job_id)
            assert record is not None
            assert record.success.output_url == success.output_url
            if job_id not in self.contested:
                assert record.sha256 == success.output.sha256

    @invariant()
    def every_failure_is_legal(self) -> None:
        """(e)"""
        for failure in self.failed:
            told = (failure.error_type.value, failure.stage.value, failure.retryable)
            assert told in LEGAL[failure.error_code], failure

    def teardown(self) -> None:
        """(f), and each job can be told of or is refused for its id alone."""
        if not hasattr(self, "store"):
            return
        assert handle(JOB | {"musetalk_job_id": "job-9"}, self.worker()).status == "success"
        for job_id in IDS:
            results = [
                handle(job | {"musetalk_job_id": job_id}, self.worker()) for job in (JOB, OTHER_JOB)
            ]
            assert sorted(result.status for result in results) == ["failed", "success"]
            [told] = [result for result in results if isinstance(result, Success)]
            kept = self.store.objects[f"out/{job_id}.mp4"].body
            assert hashlib.sha256(kept).hexdigest() == told.output.sha256

    def worker(self, trouble: Callable[[], bool] = lambda: False, **ports: Any) -> Runtime:
        client = MemoryClient(self.store, trouble)
        bucket = Bucket(client, "results", "out", retry=Retry(tries=3, sleep=lambda _: None))
        records = S3Records(bucket)
        return runtime_of(store=S3Store(bucket, records, identify), records=records, **ports)

    def run(self, job: dict[str, Any], runtime: Runtime | None = None, *report: Any) -> None:
        result: Result = handle(job, runtime or self.worker(), *report)
        if isinstance(result, Success):
            self.returned.append(result)
        else:
            self.failed.append(result)

    def crash(self, job: dict[str, Any], runtime: Runtime) -> None:
        try:
            self.run(job, runtime)
        except Killed:
            """Nobody heard of it."""

    def contest(self, job: dict[str, Any], rivals: dict[str, Any]) -> None:
        if job["musetalk_job_id"] == rivals["musetalk_job_id"] and not self.store.compares:
            self.contested.add(job["musetalk_job_id"])


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=120, stateful_step_count=15, deadline=None)
