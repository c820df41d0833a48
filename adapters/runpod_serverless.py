"""RunPod's door: its SDK takes the jobs and sends the answers, and what is between happens here.

The SDK (1.12) is used with care, for what it does by itself loses jobs:

- a handler that blocks keeps it from hearing of cancelled jobs, so each job has a thread;
- an answer that it cannot send is logged and forgotten, so answers are checked before;
- its progress reports overtake each other and the answer, so they are sent here, one by one;
- at SIGTERM it waits up to 90 s for a request to end and drops the job that this may bring, so
  the process ends by itself, as soon as nothing is in hand;
- at its own log level, DEBUG, it prints every answer, and with it presigned URLs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sized
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from typing import Any

from adapters import cold_start
from adapters.bootstrap import bootstrap
from adapters.config import Config, ConfigError
from adapters.doctor import Finding, examine_surroundings
from adapters.log import Log, log_result, open_log
from adapters.runpod_sdk import RunpodJob, Sdk, import_sdk
from handler.cancellation import Cancellation
from handler.core import handle
from handler.errors import ErrorType, Stage, WorkerBroken
from handler.job import with_job_id
from handler.ports import Runtime
from handler.progress import Phase, Progress
from handler.redaction import redact
from handler.result import Failure, Result

#: The media of one job travel while the other has the GPU, which the engine lends to one at a time.
JOBS_AT_ONCE = 2
#: RunPod takes 10 MB of an answer; some of that is what the SDK wraps around it.
MAX_ANSWER_BYTES = 9_000_000
PROGRESS_SECONDS = 1.0
#: The end of a job waits this long, at most, for a report that is under way.
REPORT_PATIENCE_SECONDS = 5.0

#: A job that is further than these can do without a GPU that has failed under the other.
NEEDS_GPU = frozenset({Phase.DOWNLOADING, Phase.INFERRING})

#: Exit codes: told to stop; a setting is wrong; the GPU failed, start another process.
STOPPED, MISUSED, BROKEN = 0, 2, 75


def main() -> None:
    """Take jobs from RunPod until it stops this worker.

    Exit code 0 then, 1 if the SDK finds the worker unfit, 2 if a setting is wrong, 75 if the GPU
    failed.
    """
    try:
        config = Config.from_env(os.environ)
        sdk = import_sdk()
    except ConfigError as error:
        open_log().critical(f"{error}")
        sys.exit(MISUSED)
    log = open_log(worker_id=config.worker_id, provider=config.provider)
    load = partial(_start, config, log)
    serve(sdk, load, log, _vital(examine_surroundings(config), config, log))


def _start(config: Config, log: Log) -> Runtime:
    runtime = bootstrap(config)
    log.info("ready", **cold_start.facts(config, runtime))
    return runtime


def serve(
    sdk: Sdk, load: Callable[[], Runtime], log: Log, findings: Iterable[Finding] = ()
) -> None:
    """Hand what RunPod sends to the runtime that ``load`` builds; ends in :class:`SystemExit`.

    What is not fine among the findings, or fails to load, is reported to RunPod by the SDK, which
    then ends the process with exit code 1.
    """
    load = cache(load)

    def engine() -> None:
        load()

    for check in (*map(_fitness_check, findings), engine):
        sdk.register_fitness_check(check)
    shift = Shift(sdk.jobs_in_hand, log)
    # The SDK would read our command line as its own.
    sys.argv = sys.argv[:1]
    door = Door(sdk, load, shift, log)
    sdk.start({"handler": door, "concurrency_modifier": shift.concurrency})


class Door:
    """Run jobs, each in a thread, and tell RunPod how far they are."""

    def __init__(self, sdk: Sdk, load: Callable[[], Runtime], shift: Shift, log: Log) -> None:
        self._sdk = sdk
        self._load = load
        self._shift = shift
        self._log = log
        self._broken = False

    async def __call__(self, job: RunpodJob) -> dict[str, Any]:
        """Return what the SDK is to send; raise ``CancelledError`` if RunPod stopped the job."""
        self._shift.watch_task()
        news = deque[Progress](maxlen=1)
        report = Cancellation(partial(self._listen, news))
        try:
            async with self._telling(job, news):
                work = asyncio.create_task(asyncio.to_thread(self._run, job, report))
                answer = await _outcome(work, report)
        finally:
            if self._broken:
                self._shift.leave(BROKEN)
        # This key goes to RunPod, which replaces the worker; the SDK would go on taking jobs.
        return {**answer, "refresh_worker": True} if self._broken else answer

    def _listen(self, news: deque[Progress], progress: Progress) -> None:
        if self._broken and progress.phase in NEEDS_GPU:
            raise WorkerBroken("The GPU failed under another job; this worker is being replaced.")
        news.append(progress)

    def _run(self, job: RunpodJob, report: Cancellation) -> dict[str, Any]:
        try:
            result = handle(with_job_id(job.get("input"), job["id"]), self._load(), report)
        except WorkerBroken as broken:
            self._broken = True
            result = broken.failure
        result = _sendable(result)
        log_result(self._log.bind(requestId=job["id"]), result)
        return _answer(result)

    @asynccontextmanager
    async def _telling(self, job: RunpodJob, news: deque[Progress]) -> AsyncIterator[None]:
        """Report what is new, once a second; afterwards no report is under way."""
        ended = asyncio.Event()
        teller = asyncio.create_task(self._tell(job, news, ended))
        try:
            yield
        finally:
            ended.set()
            # Whatever became of a report, it is no reason to lose the job.
            await asyncio.gather(teller, return_exceptions=True)

    async def _tell(self, job: RunpodJob, news: deque[Progress], ended: asyncio.Event) -> None:
        async with self._sdk.open_session() as session:
            while not await _set_within(PROGRESS_SECONDS, ended):
                if news:
                    body = {"status": "IN_PROGRESS", "output": news.pop().to_json()}
                    with suppress(TimeoutError):
                        async with asyncio.timeout(REPORT_PATIENCE_SECONDS):
                            await self._sdk.send(session, body, job)


async def _outcome(work: asyncio.Task[dict[str, Any]], report: Cancellation) -> dict[str, Any]:
    """Wait for a thread, also if the job is cancelled: until it ends, it may have the GPU."""
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            report.request("RunPod stopped the job.")
    if report.requested:
        raise asyncio.CancelledError
    return work.result()


async def _set_within(seconds: float, event: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def _answer(result: Result) -> dict[str, Any]:
    """Return what the SDK makes the output of a completed job, or the error of a failed one."""
    if isinstance(result, Failure):
        return {"error": json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False)}
    return result.to_json()


def _sendable(result: Result) -> Result:
    """Return the result, or a failure in the place of one that would get lost on its way."""
    try:
        text = json.dumps(_answer(result), ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError) as error:
        return _unsendable(result, redact(str(error)))
    if size > MAX_ANSWER_BYTES:
        return _unsendable(result, f"it has {size} bytes, and RunPod takes {MAX_ANSWER_BYTES}")
    return result


def _unsendable(result: Result, reason: str) -> Failure:
    # Nothing is taken over that could be the very thing that cannot be sent.
    return Failure(
        error_type=ErrorType.UNKNOWN,
        error_code="result_unsendable",
        error_message=f"The job has ended, but its result cannot be sent: {reason[:500]}",
        stage=Stage.UNKNOWN,
        retryable=False,
        musetalk_job_id=result.musetalk_job_id,
    )


class Shift:
    """Say how many jobs to take, and end the process when it is told to leave and has none."""

    def __init__(self, in_hand: Sized, log: Log) -> None:
        """Leave only when ``in_hand`` is empty."""
        self._in_hand = in_hand
        self._log = log
        self._exit_code: int | None = None
        self._listening = False

    def concurrency(self, _: int) -> int:
        """Return how many jobs to hold at once; the SDK asks each time before it takes any."""
        if not self._listening:
            self._listening = True
            # Not before: the SDK would replace the handlers, and its heartbeat inherit them.
            loop = asyncio.get_running_loop()
            for sent in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(sent, self.leave, STOPPED)
        # The SDK takes no job at all before it has come down to a new number.
        return JOBS_AT_ONCE if self._exit_code is None else 1

    def watch_task(self) -> None:
        """Look, when the running task has sent its answer, whether it was the last."""
        if task := asyncio.current_task():
            task.add_done_callback(lambda _: self._leave_if_done())

    def leave(self, exit_code: int) -> None:
        """Take no other job, and end the process once those in hand are answered."""
        self._log.info("leaving", jobs_in_hand=len(self._in_hand), exit_code=exit_code)
        self._exit_code = self._exit_code or exit_code
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self._exit_code is not None and not self._in_hand:
            # From a callback of the loop, this closes all that it has open, and ends it.
            raise SystemExit(self._exit_code)


def _vital(findings: Iterable[Finding], config: Config, log: Log) -> list[Finding]:
    """Return what no job can do without; a place for videos, each job may bring itself."""
    vital = [finding for finding in findings if finding.subject != "storage" or config.has_storage]
    if not config.has_storage:
        log.warning("no storage: jobs fail unless they bring output.put_url and output.get_url")
    return vital


def _fitness_check(finding: Finding) -> Callable[[], None]:
    def check() -> None:
        if not finding.fine:
            raise RuntimeError(str(finding))

    # By this name RunPod tells the operator what is wrong.
    check.__name__ = finding.subject
    return check


if __name__ == "__main__":
    main()
