"""What a minute of video costs on this machine: measured, and told without a trace left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from adapters.benchmark import COLUMNS, Benchmark, Cost, measure
from adapters.config import Config
from handler import Runtime, Success, handle
from handler.result import CacheUse, Metrics
from tests.clips import run_ffmpeg
from tests.loopback_server import LoopbackServer

WORKER = Path(sys.executable).with_name("musetalk-worker")
ROUNDS = 2
#: Far longer than anything takes.
PATIENCE_SECONDS = 60

Shell = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Measured:
    """A benchmark, and the jobs that it was made of."""

    benchmark: Benchmark
    results: list[Success]


@pytest.fixture(scope="module")
def glimpse(face: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sample face, short and small."""
    target = tmp_path_factory.mktemp("glimpse") / "face.mp4"
    run_ffmpeg("-i", f"{face}", "-t", "0.4", "-vf", "scale=256:-2", f"{target}")
    return target


@pytest.fixture(scope="module")
def measured(glimpse: Path, word: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Measure once, where an earlier worker has left nothing."""
    return run_benchmark(glimpse, word, tmp_path_factory.mktemp("measured"))


def run_benchmark(face: Path, word: Path, place: Path, **env: str) -> Measured:
    """Measure with the preview engine, below a directory."""
    ours = {"MUSETALK_ENGINE": "preview", "AVATAR_CACHE_DIR": f"{place / 'avatars'}"}
    results: list[Success] = []

    def film(raw: Mapping[str, Any], runtime: Runtime) -> Success:
        result = handle(raw, runtime)
        assert isinstance(result, Success), result
        results.append(result)
        return result

    config = Config.from_env(ours | env)
    return Measured(measure(config, face.as_uri(), word.as_uri(), ROUNDS, film), results)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Return what runs the command in an environment of its own."""

    def run(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(WORKER), "bench", *map(str, words)],
            env=environment(tmp_path) | env,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def environment(place: Path) -> dict[str, str]:
    """Return settings that keep all files of a worker below a directory."""
    scratch = place / "tmp"
    scratch.mkdir()
    return {
        "PATH": os.environ["PATH"],
        "TMPDIR": f"{scratch}",
        "AVATAR_CACHE_DIR": f"{place / 'avatars'}",
        "MUSETALK_ENGINE": "preview",
    }


def left_behind(place: Path) -> list[Path]:
    """Return what lies below a directory, but for the place where workers lend theirs."""
    lending = place / "tmp" / f"musetalk-worker-{os.getuid()}"
    return [path for path in place.rglob("*") if path not in (place / "tmp", lending)]


class Elsewhere(LoopbackServer):
    """Stands for every other machine: what is said to it is heard, and not answered."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Ear)
        self.heard: list[bytes] = []


class _Ear(BaseHTTPRequestHandler):
    server: Elsewhere

    def handle_one_request(self) -> None:
        self.server.heard.append(self.rfile.readline())
        self.close_connection = True


class Reluctant(LoopbackServer):
    """Serves a voice once, and then keeps its client waiting."""

    def __init__(self, voice: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Lender)
        self.voice = voice
        self.served, self.asked_again, self.closing = Event(), Event(), Event()


class _Lender(BaseHTTPRequestHandler):
    server: Reluctant

    def do_GET(self) -> None:
        if self.server.served.is_set():
            self.server.asked_again.set()
            self.server.closing.wait(PATIENCE_SECONDS)
            return
        self.send_response(200)
        self.send_header("Content-Length", f"{len(self.server.voice)}")
        self.end_headers()
        self.wfile.write(self.server.voice)
        self.server.served.set()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(server: LoopbackServer) -> Iterator[None]:
    """Have a server answer until it is not needed any more."""
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    server = Elsewhere()
    with serving(server):
        yield server


@pytest.fixture
def reluctant(word: Path) -> Iterator[Reluctant]:
    server = Reluctant(word.read_bytes())
    with serving(server):
        yield server
        server.closing.set()


def test_the_first_face_is_new_and_the_others_are_known(measured: Measured) -> None:
    uses = [result.metrics.avatar_cache for result in measured.results]

    assert uses == ["miss", *["hit"] * ROUNDS]
    assert measured.benchmark.new_face == Cost.of(measured.results[:1], CacheUse.MISS)
    assert measured.benchmark.known_face == Cost.of(measured.results[1:], CacheUse.HIT)


def test_every_job_is_done_and_none_is_answered_from_a_record(measured: Measured) -> None:
    jobs = {result.musetalk_job_id for result in measured.results}

    assert len(jobs) == 1 + ROUNDS
    assert not any(result.replayed for result in measured.results)


def test_the_numbers_are_those_of_the_jobs_and_agree_with_each_other(measured: Measured) -> None:
    told = json.loads(json.dumps(measured.benchmark.to_json()))
    spent = [result.metrics.total_time for result in measured.results]
    video, known = told["video"], told["known_face"]

    assert told["worker"] == measured.results[0].to_json()["worker"]
    assert told["start_seconds"] == told["worker"]["cold_start_sec"] > 0
    assert (video["width"], video["height"], video["frames"]) == (256, 256, 25)
    assert told["new_face"]["seconds"] == pytest.approx(spent[0], abs=1e-3)
    assert known["fastest_seconds"] == pytest.approx(min(spent[1:]), abs=1e-3)
    assert known["slowest_seconds"] == pytest.approx(max(spent[1:]), abs=1e-3)
    for cost in (told["new_face"], known):
        per_minute = 60 / video["duration_seconds"] * cost["seconds"]
        assert cost["seconds_per_minute"] == pytest.approx(per_minute, rel=0.01)
        assert cost["frames_per_second"] == pytest.approx(25 / cost["seconds"], rel=0.01)
        assert 0 <= cost["networks_seconds"] < cost["engine_seconds"] < cost["seconds"]


def test_what_nobody_knows_is_null_and_a_dash(measured: Measured) -> None:
    told = measured.benchmark.to_json()
    vram = next(line for line in measured.benchmark.table() if "VRAM" in line)

    assert told["batch_size"] is None
    assert told["peak_vram_mib"] is None
    assert vram.split() == ["peak", "VRAM", "-"]


def with_metrics(result: Success, **metrics: object) -> Success:
    """Return a result that tells other numbers."""
    told = result.metrics.model_dump() | metrics
    return result.model_copy(update={"metrics": Metrics.model_validate(told)})


def test_one_slow_job_changes_the_spread_and_not_the_number(measured: Measured) -> None:
    known = measured.results[-1]
    jobs = [with_metrics(known, total_time=seconds) for seconds in (2.0, 30.0, 1.9)]

    cost = Cost.of(jobs, CacheUse.HIT)

    assert cost is not None
    assert (cost.jobs, cost.seconds) == (3, 2.0)
    assert (cost.fastest_seconds, cost.slowest_seconds) == (1.9, 30.0)


def test_memory_is_told_where_it_was_shortest(measured: Measured) -> None:
    first, *others = measured.results
    jobs = [
        with_metrics(first, PEAK_VRAM_MIB=7064.7, batch_size=8),
        *(with_metrics(other, PEAK_VRAM_MIB=5012.1, batch_size=4) for other in others),
    ]

    told = Benchmark.of(measured.benchmark.worker, jobs)

    assert (told.batch_size, told.peak_vram_mib) == (4, 7064.7)


def test_the_table_holds_it_all_on_a_narrow_screen(measured: Measured) -> None:
    worker = measured.benchmark.worker.model_copy(
        update={"weights": "0123456789abcdef", "torch": "2.11.0+cu130", "cuda": "13.0"}
    )
    benchmark = replace(
        measured.benchmark,
        worker=worker,
        gpu_class="NVIDIA RTX PRO 6000 Blackwell Server Edition",
        batch_size=8,
        peak_vram_mib=7064.7,
    )

    lines = list(benchmark.table())

    words = " ".join(" ".join(lines).split())
    for fact in ("preview", "0123456789abcdef", "Blackwell Server", "2.11.0+cu130", "CUDA 13.0"):
        assert fact in words
    assert f"ffmpeg {worker.ffmpeg}, batch size 8 video (V) {benchmark.video.duration} s" in words
    assert f"start (C) {worker.cold_start_sec} s peak VRAM 7064.7 MiB" in words
    for name, cost in (("new", benchmark.new_face), ("known", benchmark.known_face)):
        assert cost is not None
        numbers = [f"{number:.3f}" for number in astuple(cost)[1:]]
        assert f"{name} face (W) {cost.jobs} {' '.join(numbers[:5])}" in words
    assert words.endswith(f"engine (E) {numbers[5]} networks (G) {numbers[6]}")
    assert max(map(len, lines)) <= COLUMNS == 100


def test_a_face_that_the_cache_has_no_room_for_is_not_called_known(
    glimpse: Path, word: Path, tmp_path: Path
) -> None:
    benchmark = run_benchmark(glimpse, word, tmp_path, AVATAR_CACHE_MB="0").benchmark

    assert benchmark.new_face is not None
    assert benchmark.new_face.jobs == 1 + ROUNDS
    assert benchmark.to_json()["known_face"] is None
    assert "AVATAR_CACHE_MB" in list(benchmark.table())[-1]


def test_json_is_all_that_is_printed_and_nothing_is_left_or_sent_whatever_is_set(
    shell: Shell, glimpse: Path, word: Path, tmp_path: Path, elsewhere: Elsewhere
) -> None:
    address = f"http://127.0.0.1:{elsewhere.server_port}"
    services = {
        "B2_KEY_ID": "id",
        "B2_APP_KEY": "key",
        "B2_BUCKET_NAME": "videos",
        "S3_ENDPOINT_URL": address,
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
        "SUPERVISED": "true",
    }

    done = shell("--video", glimpse, "--audio", word, "--rounds", 1, "--json", **services)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["known_face"]["jobs"] == 1
    assert left_behind(tmp_path) == []
    assert elsewhere.heard == []


def test_the_directory_of_videos_gets_none_and_the_table_is_all_that_is_printed(
    shell: Shell, glimpse: Path, word: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    done = shell("--video", glimpse, "--audio", word, "--rounds", 1, OUTPUT_DIR=f"{out}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("worker ")
    assert "completed" not in done.stdout
    assert left_behind(tmp_path) == []


def test_a_job_that_fails_says_why_and_exits_with_1(
    shell: Shell, word: Path, tmp_path: Path
) -> None:
    done = shell("--video", "gone.mp4", "--audio", word, "--json")

    assert done.returncode == 1
    assert "Download failed: there is no file" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "env", "complaint"),
    [
        ((), {}, "--video"),
        (("--video=a.mp4", "--audio=a.wav", "--rounds=0"), {}, "--rounds"),
        (("--video=a.mp4", "--audio=a.wav"), {"MAX_FPS": "many"}, "MAX_FPS"),
        (("--video=a.mp4", "--audio=a.wav"), {"MUSETALK_ENGINE": "musetalk"}, "unet.pth"),
    ],
)
def test_a_command_that_makes_no_sense_is_explained_and_exits_with_2(
    shell: Shell, words: tuple[str, ...], env: dict[str, str], complaint: str
) -> None:
    done = shell(*words, COLUMNS="200", **env)

    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_ctrl_c_leaves_nothing_behind(glimpse: Path, reluctant: Reluctant, tmp_path: Path) -> None:
    voice = f"http://127.0.0.1:{reluctant.server_port}/voice.wav"
    allowed = {"ALLOW_HTTP": "true", "ALLOW_PRIVATE_HOSTS": "127.0.0.1"}
    worker = subprocess.Popen(
        [str(WORKER), "bench", "--video", f"{glimpse}", "--audio", voice],
        env=environment(tmp_path) | allowed,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # By now a face is remembered and a video stored.
        assert reluctant.asked_again.wait(PATIENCE_SECONDS)
        there = {path.suffix for path in left_behind(tmp_path)}
        worker.send_signal(signal.SIGINT)
        stdout, stderr = worker.communicate(timeout=PATIENCE_SECONDS)
    finally:
        worker.kill()

    assert there >= {".avatar", ".mp4"}
    assert (worker.returncode, stdout) == (130, "")
    assert "Traceback" not in stderr
    assert left_behind(tmp_path) == []
