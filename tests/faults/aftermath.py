"""A worker under watch: whatever befell it, it does the next job, has tidied up and kept silent.

Every secret that is put into it holds one of two words. An answer takes no longer than the limit
of a job and ten seconds, which is how long those who ask are willing to wait.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol

import psutil

from adapters.bootstrap import bootstrap
from adapters.config import Config
from adapters.log import log_result, open_log
from adapters.transfer.local import LocalFetch
from adapters.workspace import Workspaces
from handler import Failure, Result, Success, handle, read_result
from handler.ports import Fetch
from tests.drive_http import PATIENCE_SECONDS, HttpDriver, WorkerProcess, worker_process
from tests.orchestrator import API_KEY

MARK = "5ecre7"
WORDS = (MARK, API_KEY)
#: What a signed URL ends in.
QUERY = f"X-Amz-Credential={MARK}-id%2Fs3&X-Amz-Signature={MARK}51gnature&token={MARK}"
TOKEN = f"{MARK}-worker-token"
#: Every key that a worker can be given.
KEYS = {
    "B2_KEY_ID": "key-id",
    "B2_APP_KEY": f"{MARK}-app-key",
    "B2_BUCKET_NAME": "videos",
    "INTERNAL_API_KEY": API_KEY,
    "WEBHOOK_SECRET": f"whsec_{MARK * 8}",
    "WORKER_TOKEN": TOKEN,
}
#: Seconds that a job may take; who asks waits ten more.
LIMIT_SECONDS = PATIENCE_SECONDS - 10

#: The status of a worker that takes no job.
UNAVAILABLE = 503

#: Who is to act, whether trying again may help, and where it happened.
Verdict = tuple[str, bool, str]


def signed(url: str) -> str:
    """Return the URL of a face on some server, with secrets in it."""
    return f"{url}/face.mp4?{QUERY}"


def verdict(failure: Failure) -> Verdict:
    """Return what programs decide by."""
    return failure.error_type, failure.retryable, failure.stage


class Log(Protocol):
    """What a worker has logged."""

    @property
    def text(self) -> str:
        """Return everything so far."""

    def until(self, *words: str) -> None:
        """Wait for a line with all these words."""


class Lines:
    """Reads the log of a process to its end, and lends what has come."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.text = ""
        self._ended = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def until(self, *words: str) -> None:
        """Wait for a line with all these words, or for the end."""

        def found() -> bool:
            lines = self.text.splitlines()
            return self._ended or any(all(word in line for word in words) for line in lines)

        with self._change:
            assert self._change.wait_for(found, PATIENCE_SECONDS), f"no {words} in {self.text}"

    def close(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _read(self) -> None:
        for line in self._stream:
            self._add(line, ended=False)
        self._add("", ended=True)

    def _add(self, line: str, *, ended: bool) -> None:
        with self._change:
            self.text += line
            self._ended = ended
            self._change.notify_all()


class Page(io.StringIO):
    """Holds the log of a worker in this process, which has written all it has to say."""

    @property
    def text(self) -> str:
        """Return everything so far."""
        return self.getvalue()

    def until(self, *words: str) -> None:
        """Find it there."""
        assert all(word in self.text for word in words)


@dataclass
class Watched:
    """A worker, and all that it let out."""

    pid: int
    #: Where it keeps the files of jobs.
    scratch: Path
    #: A job that can be done.
    good: Mapping[str, Any]
    ask: Callable[[dict[str, Any]], Mapping[str, Any]]
    log: Log
    #: Whoever speaks to it over HTTP, if anybody can.
    driver: HttpDriver | None = None
    process: subprocess.Popen[str] | None = None
    answers: list[Mapping[str, Any]] = field(default_factory=list)
    processes: int = 0

    def __post_init__(self) -> None:
        self.processes = len(self.family())

    def do(self, **fields: Any) -> Result:
        """Have a job done, be it good but for these fields."""
        self.answers.append(self.ask({**self.good, **fields}))
        return read_result(self.answers[-1])

    def fail(self, **fields: Any) -> Failure:
        """Have a job done that must fail."""
        result = self.do(**fields)
        assert isinstance(result, Failure), result
        return result

    def film(self, **fields: Any) -> Success:
        """Have a job done that must succeed."""
        result = self.do(**fields)
        assert isinstance(result, Success), result
        return result

    def family(self) -> list[psutil.Process]:
        """Return the processes below it."""
        return psutil.Process(self.pid).children(recursive=True)

    def left(self) -> list[Path]:
        """Return the files of jobs that still lie there."""
        return [path for path in self.scratch.rglob("*") if path.parent != self.scratch]

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def exit_code(self) -> int:
        """Wait for its end."""
        assert self.process
        return self.process.wait(PATIENCE_SECONDS)

    def assert_unharmed(self) -> None:
        """See that nothing is left of what befell it, and that no secret came out."""
        again = self.film()
        # The last thing that is said of a job.
        self.log.until('"job done"', again.musetalk_job_id)

        assert len(self.family()) == self.processes, self.family()
        self.assert_tidy()

    def assert_tidy(self) -> None:
        """See that no file of a job is left, and that no secret came out."""
        said = self.log.text + json.dumps(self.answers)
        told = [word for word in WORDS if word in said]
        assert self.left() == [], f"{self.left()} was left"
        assert told == [], f"{told} came out"


class Dynasty:
    """Workers in one place: where one has ended the next begins with what it left."""

    def __init__(self, start: Callable[..., AbstractContextManager[Watched]]) -> None:
        self._start = start
        self._reign = ExitStack()
        self.worker = self._reign.enter_context(start())

    def succeed(self, **env: str) -> Watched:
        """Bury a worker and start the next."""
        self.close()
        self.worker = self._reign.enter_context(self._start(**env))
        return self.worker

    def close(self) -> None:
        """End the last of them."""
        self._reign.close()


def wait_until(so: Callable[[], object]) -> None:
    """Wait for something that comes of itself."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not so():
        assert time.monotonic() < end, "this never came to pass"
        time.sleep(0.01)


def settings(place: Path, **env: str) -> dict[str, str]:
    """Return the environment of a worker that keeps everything below a place."""
    scratch = place / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    ours = {
        "MUSETALK_ENGINE": "preview",
        "ENCODER": "libx264",
        "OUTPUT_DIR": f"{place / 'out'}",
        "AVATAR_CACHE_DIR": f"{place / 'avatars'}",
        "TMPDIR": f"{scratch}",
        "ALLOW_HTTP": "true",
        "ALLOW_PRIVATE_HOSTS": "127.0.0.1",
        "MAX_DOWNLOAD_MB": "2",
        "JOB_TIMEOUT_SEC": f"{LIMIT_SECONDS}",
    }
    return {name: value for name, value in (ours | KEYS | env).items() if value}


@contextmanager
def watched_process(
    place: Path, good: Mapping[str, Any], *command: str, **env: str
) -> Iterator[Watched]:
    """Start a worker that is asked over HTTP; the command is ``serve``."""
    words = settings(place, **env)
    with worker_process(*command, token=TOKEN, **words) as worker:
        assert worker.process.stderr
        lines = Lines(worker.process.stderr)
        try:
            lines.until('"ready"')
            scratch, process = Path(words["TMPDIR"]), worker.process
            yield Watched(
                process.pid, scratch, good, _asking(worker), lines, worker.driver, process
            )
        finally:
            worker.process.kill()
            lines.close()


def _asking(worker: WorkerProcess) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    def ask(job: dict[str, Any]) -> Mapping[str, Any]:
        reply = worker.driver.generate(job)
        result = read_result(reply.body)
        answered = 200 if isinstance(result, Success) else result.http_status
        assert reply.status in {answered, UNAVAILABLE}
        body: Mapping[str, Any] = reply.body
        return body

    return ask


def watched_runtime(place: Path, good: Mapping[str, Any], fetch: Fetch, **ports: Any) -> Watched:
    """Open a worker in this process, with some of its ports replaced."""
    config = Config.from_env(settings(place))
    workspace = Workspaces(place / "scratch" / "jobs")
    runtime = bootstrap(config, fetch=LocalFetch(fetch))
    runtime = replace(runtime, **({"workspace": workspace} | ports))
    page = Page()
    log = open_log(page)

    def ask(job: dict[str, Any]) -> Mapping[str, Any]:
        result = handle({"musetalk_job_id": os.urandom(8).hex(), **job}, runtime)
        log_result(log, result)
        return result.to_json()

    return Watched(os.getpid(), place / "scratch", good, ask, page)
