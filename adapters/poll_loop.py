"""The poll loop's door: claim jobs from an orchestrator and do them (docs/contract.md section 4).

Four threads, so that none can hold up another: one claims jobs and does them, one sends heartbeats
and nothing else, one tells of jobs, and the main thread waits for signals.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from adapters import cold_start
from adapters.config import Config, ConfigError
from adapters.health import Health
from adapters.log import Log
from adapters.orchestrator import Backoff, Orchestrator
from adapters.polling.claim_loop import ClaimLoop
from adapters.polling.courier import MISSING_SECONDS, PROGRESS_SECONDS, Courier
from adapters.polling.heartbeat import HEARTBEAT_SECONDS, Heartbeat
from adapters.polling.queues import BufferQueue, Identity, MainQueue, Queue
from adapters.polling.spool import Spool
from handler.errors import WorkerBroken
from handler.ports import Runtime

#: A claim is waited for: one that is given up may have been granted all the same.
CLAIM_PATIENCE_SECONDS = 30.0
REPORT_PATIENCE_SECONDS = 15.0
#: Well below the 30 s after which a silent worker is taken for dead.
HEARTBEAT_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Say how often, in seconds, things are told; for a test that has no time."""

    heartbeat_seconds: float = HEARTBEAT_SECONDS
    heartbeat_patience_seconds: float = HEARTBEAT_PATIENCE_SECONDS
    progress_seconds: float = PROGRESS_SECONDS
    missing_seconds: float = MISSING_SECONDS
    backoff: Backoff = field(default_factory=Backoff)


class PollWorker:
    """Everything that works for one orchestrator, from the cold start to the last report."""

    def __init__(
        self,
        config: Config,
        load: Callable[[], Runtime],
        log: Log,
        health: Health,
        pace: Pace,
    ) -> None:
        """Read what the configuration says; raise :class:`ConfigError` if it cannot work."""
        self._config = config
        self._load = load
        self._log = log
        self._health = health
        self._pace = pace
        self._base_url, self._api_key = _address(config)
        self._spool = _open_spool(config)
        self._stopping = threading.Event()
        self._loop: ClaimLoop | None = None

    @property
    def started(self) -> bool:
        """Return whether jobs are taken."""
        return self._loop is not None

    @property
    def job_id(self) -> str | None:
        """Return the id of the job in hand."""
        return self._loop.standing.job_id if self._loop else None

    def run(self) -> None:
        """Work until told to stop; raise :class:`WorkerBroken` once that job is reported."""
        with self._courier() as courier:
            # Before the cold start: reports of an earlier worker have waited long enough.
            runtime = cold_start.start(self._load, self._log)
            queues = _queues(self._config, runtime)
            claims = self._client(CLAIM_PATIENCE_SECONDS)
            loop = ClaimLoop(
                claims, queues, runtime, courier, self._health, self._stopping, self._log
            )
            with self._heartbeat(queues, loop) as heartbeat:
                # Whoever asks for jobs has introduced itself.
                heartbeat.begun.wait()
                self._loop = loop
                self._say_started(runtime, queues, courier)
                self._health.ready(**runtime.worker.model_dump(mode="json"))
                try:
                    loop.run()
                except WorkerBroken as broken:
                    self._health.unhealthy(str(broken))
                    raise

    def stop(self) -> None:
        """Take no other job."""
        self._stopping.set()

    def give_back(self) -> None:
        """Do not finish the job in hand either."""
        if self._loop:
            self._loop.give_back()

    def _client(self, patience_seconds: float) -> Orchestrator:
        return Orchestrator(self._base_url, self._api_key, patience_seconds=patience_seconds)

    def _courier(self) -> Courier:
        return Courier(
            self._client(REPORT_PATIENCE_SECONDS),
            self._spool,
            self._log,
            progress_seconds=self._pace.progress_seconds,
            missing_seconds=self._pace.missing_seconds,
            backoff=self._pace.backoff,
        )

    def _heartbeat(self, queues: Sequence[Queue], loop: ClaimLoop) -> Heartbeat:
        return Heartbeat(
            self._client(self._pace.heartbeat_patience_seconds),
            queues,
            lambda: loop.standing,
            self._log,
            every_seconds=self._pace.heartbeat_seconds,
        )

    def _say_started(self, runtime: Runtime, queues: Sequence[Queue], courier: Courier) -> None:
        """Log what an operator asks about first; no secrets."""
        if len(queues) > 1:
            self._log.warning("WORKER_ID and BUFFER_WORKER_ID are set: one loop, buffer first")
        self._log.info(
            "started",
            **cold_start.facts(self._config, runtime),
            worker_type=self._config.worker_type,
            orchestrator=self._base_url,
            queues=[queue.name for queue in queues],
            poll_seconds=[queue.interval_seconds for queue in queues],
            heartbeat_seconds=self._pace.heartbeat_seconds,
            spool=str(self._spool.directory),
            reports_waiting=courier.waiting,
        )


def _address(config: Config) -> tuple[str, str]:
    """Return the orchestrator's base and the key to it."""
    base_url = config.buffer_orchestrator_base_url or config.orchestrator_base_url
    if base_url is None:
        raise ConfigError("ORCHESTRATOR_BASE_URL must be set: where do jobs come from?")
    if config.internal_api_key is None:
        raise ConfigError("INTERNAL_API_KEY must be set: the orchestrator asks for it.")
    if not config.has_storage:
        raise ConfigError(
            "B2_KEY_ID, B2_APP_KEY and B2_BUCKET_NAME must be set, or OUTPUT_DIR: the"
            " orchestrator's jobs do not say where their videos go."
        )
    return base_url, config.internal_api_key.get_secret_value()


def _open_spool(config: Config) -> Spool:
    """Open this worker's part of the spool: others may share the directory."""
    directory = config.spool_dir or config.avatar_cache_dir / "reports"
    try:
        return Spool(directory / quote(config.worker_id, safe="").replace(".", "%2E"))
    except OSError as error:
        raise ConfigError(f"SPOOL_DIR={directory}: {error.strerror}") from error


def _queues(config: Config, runtime: Runtime) -> Sequence[Queue]:
    """Return the queues to serve, the preferred first; the predecessor's variables decide."""
    identity = Identity(
        worker_id=config.worker_id,
        worker_type=config.worker_type,
        provider=config.provider,
        gpu_class=runtime.gpu_class,
        capacity=config.buffer_capacity,
        system_info=runtime.worker.model_dump(mode="json", exclude={"worker_id", "provider"}),
    )
    buffer = BufferQueue(identity, config.buffer_poll_interval_sec)
    main_queue = MainQueue(identity, config.poll_interval_sec)
    if config.worker_mode.lower() == "buffer":
        return (buffer,)
    if config.buffer_worker_id is None:
        return (main_queue,)
    return (buffer,) if config.main_worker_id is None else (buffer, main_queue)
