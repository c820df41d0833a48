"""Modal's GPU class without Modal: how a container starts, and its jobs, whose results are values.

A failed job is returned as well, not raised: Modal would try again what it raises. Jobs run in the
main thread, one at a time, where Modal's signals end them: a caller who takes a job back, or a
machine that is taken away, interrupts it like Ctrl-C, and it leaves nothing behind, not even an
answer. What was on a machine that went away, Modal runs again elsewhere, with the same id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

from adapters.bootstrap import ReadEngine, bootstrap, read_engine
from adapters.config import Config
from adapters.log import Log, log_result, open_log
from handler import Progress, Report, Runtime, WorkerBroken, handle
from handler.job import job_id_of, with_job_id
from handler.progress import ignore

#: Progress is told no more often.
NEWS_SECONDS = 1.0


def read(env: Mapping[str, str], *, to_gpu: bool = False) -> ReadEngine:
    """Do the part of a cold start that a snapshot holds: all that needs no GPU.

    With ``to_gpu``, for snapshots of a GPU's memory, the rest as well. Raises
    :class:`adapters.config.ConfigError`.
    """
    engine = cache(read_engine(_settings(env)))
    if to_gpu:
        engine()
    return engine


def start(env: Mapping[str, str], engine: ReadEngine, stop_fetching: Callable[[], None]) -> Jobs:
    """Do what a snapshot cannot hold: the GPU, connections, and who this container is.

    The environment is asked again, for it may have changed since the snapshot. Raises
    :class:`adapters.config.ConfigError`.
    """
    config = _settings(env)
    log = open_log(worker_id=config.worker_id, provider=config.provider)
    return Jobs(bootstrap(config, engine=engine), log, stop_fetching)


def _settings(env: Mapping[str, str]) -> Config:
    return Config.from_env({"PROVIDER": "modal", "WORKER_ID": env.get("MODAL_TASK_ID", ""), **env})


class Jobs:
    """Run the jobs of one container."""

    def __init__(self, runtime: Runtime, log: Log, stop_fetching: Callable[[], None]) -> None:
        """Call ``stop_fetching`` once the container must get no other job; it may fail."""
        self._runtime = runtime
        self._log = log
        self._stop_fetching = stop_fetching
        self._broken = False

    def handle(self, job: Any, call_id: str | None, report: Report = ignore) -> dict[str, Any]:
        """Run a job and return its result, be it a success or a failure.

        Raises ``RuntimeError`` in a container that is broken and could not be closed to new jobs.
        """
        if self._broken:
            self._retire()
            # Raised and not returned: Modal gives such a job to another container.
            raise RuntimeError("The GPU of this container is lost; the job was not begun.")
        # A second run of the same call has this id as well.
        named = with_job_id(job, call_id)
        try:
            result = handle(named, self._runtime, report)
        except WorkerBroken as broken:
            self._retire()
            result = broken.failure
        except BaseException as end:
            # Taken back, or the machine is: Modal wants no answer, and operators one line a job.
            reason, job_id = type(end).__name__, job_id_of(named)
            self._log.info("job interrupted", musetalk_job_id=job_id, reason=reason)
            raise
        log_result(self._log, result)
        return result.to_json()

    def events(self, job: Any, call_id: str | None) -> Iterator[dict[str, Any]]:
        """Run a job and yield its progress now and then, its end, and last its result.

        A job whose events nobody takes any more ends at its next sign of progress.
        """
        news = _News()
        with ThreadPoolExecutor(1) as thread:
            run = thread.submit(self.handle, job, call_id, news)
            try:
                while not wait([run], NEWS_SECONDS).done:
                    yield from news.take()
            finally:
                news.close()
        yield from news.take()
        yield run.result()

    def leave(self) -> None:
        """Say that the container goes, for whoever reads its log."""
        self._log.info("container stops")

    def _retire(self) -> None:
        self._broken = True
        try:
            self._stop_fetching()
        except Exception as error:  # noqa: BLE001 - the answer of the job in hand matters more
            self._log.error("container not closed to new jobs", reason=type(error).__name__)


class Abandoned(BaseException):
    """Nobody listens to this job any more: it ends without an answer, as if interrupted."""


class _News:
    """Hold the latest progress of a job until somebody takes it."""

    def __init__(self) -> None:
        self._latest: deque[Progress] = deque(maxlen=1)
        self._closed = False

    def __call__(self, progress: Progress) -> None:
        if self._closed:
            raise Abandoned
        self._latest.append(progress)

    def take(self) -> Iterator[dict[str, Any]]:
        """Yield what is new."""
        while self._latest:
            yield self._latest.popleft().to_json()

    def close(self) -> None:
        """End the job at its next sign of progress."""
        self._closed = True
