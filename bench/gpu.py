"""Measure MuseTalk at full size on a GPU: networks, cold start, films in memory, whole jobs.

    make bench-gpu
    .venv/bin/python -m bench.gpu

The weights are random and written to a temporary directory (2 GB), so a cold start reads them from
memory, not from a disk; DWPose is left out. Rows come as they are known, from what is cheap to what
is costly, and one that fails leaves the others alone. Without ffmpeg whole jobs are left out. It
ends after eight minutes or little more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from bench.filming import MEMORY_MIB, Crew, film_in_memory, film_jobs, hire
from bench.networks import write_networks
from bench.passes import FRAME_GFLOP, PASSES, Work, generating, hearing
from bench.report import Report
from bench.stand import ON_CPU, ON_GPU, Stand
from inference.musetalk.device import Device
from inference.musetalk.face_reader import FaceReader
from inference.musetalk.generator import Generator
from inference.musetalk.models import Networks, read_networks

#: What the UNet and the decoder are to reach on an H100.
GENERATOR_FPS = 300
#: Nothing new is begun after so long.
TOTAL_SECONDS = 450.0

NO_GPU = """
There is no GPU here. On one, this measures networks of full size: frames a second of the UNet and
the decoder at batches of 4 to 32, as they are and compiled, with channels last and first; what part
of the card's own rate that is; each network alone; memory at a batch of 8; a cold start by its
parts; and films of 512 frames and more. Here it runs the same with tiny networks, to know that it
would run: the numbers say nothing.
"""


def main() -> None:
    """Print what is measured with, then the table."""
    device = Device.choose()
    if not device.is_cuda:
        print(NO_GPU)
    print(f"\n{device.name}, {datetime.now(UTC):%Y-%m-%d}, PyTorch {torch.__version__},", end=" ")
    print(f"CUDA {torch.version.cuda}, {device.dtype}, {os.cpu_count()} cores, random weights\n")
    report = Report("what", "measured", "of the card's", "promised")
    plan = ON_GPU if device.is_cuda else ON_CPU
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        _measure(Stand(report, device, plan, Path(scratch), TOTAL_SECONDS))


def _measure(stand: Stand) -> None:
    tflops = stand.matrix_tflops()
    stand.report.row("one large matrix product", f"{tflops:.3g} TFLOP/s", "100 %")
    weights = stand.scratch / "weights"
    write_networks(weights, stand.plan.size)
    with stand.report.part("cold start"):
        _cold_start(stand, weights)
    networks = read_networks(weights)
    # As a worker does.
    torch.backends.cudnn.benchmark = stand.device.is_cuda
    networks.move(stand.device)
    generator = Generator(networks, stand.device)
    with stand.report.part("memory"):
        _memory(stand, networks, generator)
    for batch in stand.plan.batches:
        _generator_row(stand, generator, batch, "eager", tflops)
    _singles(stand, networks, tflops)
    for width, height in stand.plan.clips:
        _films(stand, networks, width, height)
    _other_ways(stand, networks, generator, tflops)
    _compiled(stand, networks, tflops)
    print(f"\n{stand.seconds - stand.seconds_left:.0f} s in all")


def _cold_start(stand: Stand, weights: Path) -> None:
    arguments = [f"{weights}", f"{stand.plan.batch}"]
    command = [sys.executable, "-m", "bench.cold_start", *arguments]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    steps: dict[str, float] = json.loads(printed.splitlines()[-1])
    for step, taken in {**steps, "in all": sum(steps.values())}.items():
        stand.report.row(f"cold start: {step}", f"{taken:.2f} s")


def _memory(stand: Stand, networks: Networks, generator: Generator) -> None:
    """Report the peaks at a worker's own batch, weights included."""
    device, batch = stand.device, stand.plan.batch
    reader = FaceReader(networks, device)
    works: dict[str, Work] = {
        "UNet and decoder": generating(generator, device, batch),
        "encoder and BiSeNet": partial(reader.warm_up, batch),
    }
    for name, work in works.items():
        device.reset_peak()
        with torch.inference_mode():
            work()
        peak = device.peak_mib()
        measured = "no GPU" if peak is None else f"{peak:.0f} MiB"
        stand.report.row(f"peak, {name}, batch {batch}", measured, "", f"≤ {MEMORY_MIB} MiB")


def _generator_row(stand: Stand, generator: Generator, batch: int, how: str, tflops: float) -> None:
    name = f"UNet and decoder, batch {batch}, {how}"
    with stand.report.part(name):
        fps = batch / stand.steady(generating(generator, stand.device, batch))
        share = stand.share(fps * FRAME_GFLOP, tflops)
        stand.report.row(name, f"{fps:.0f} fps", share, f"≥ {GENERATOR_FPS} fps")


def _other_ways(stand: Stand, networks: Networks, generator: Generator, tflops: float) -> None:
    """Try what a worker does not do: kernels chosen by rule, and channels first."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False):
        _generator_row(stand, generator, stand.plan.batch, "without cudnn.benchmark", tflops)
    for network in (networks.unet, networks.vae):
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()
    for batch in stand.plan.batches:
        _generator_row(stand, generator, batch, "channels first", tflops)
    networks.move(stand.device)


def _singles(stand: Stand, networks: Networks, tflops: float) -> None:
    device, batch = stand.device, stand.plan.batch
    for each in PASSES:
        name = f"{each.name}, batch {batch}"
        with stand.report.part(name):
            fps = batch / stand.steady(each.begin(networks, device, batch))
            stand.report.row(name, f"{fps:.0f} fps", stand.share(fps * each.gflop, tflops))
    with stand.report.part("Whisper, 30 s of sound"):
        heard = stand.steady(hearing(networks, device))
        stand.report.row("Whisper, 30 s of sound", f"{1000 * heard:.1f} ms")


def _films(stand: Stand, networks: Networks, width: int, height: int) -> None:
    with stand.report.part(f"films, {height}p"):
        crew = hire(stand, networks, (width, height))
        if (width, height) == stand.plan.reel[1:]:
            film_in_memory(crew)
        film_jobs(crew, width, height)


def _compiled(stand: Stand, networks: Networks, tflops: float) -> None:
    """Compile for one batch after the other, as long as there is time for one more."""
    cache = stand.scratch / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    generator = Generator(networks, stand.device)
    generator.compile(dynamic=False)
    taken = 0.0
    for batch in stand.plan.compiled:
        name = f"compiling for batch {batch}"
        if stand.seconds_left < taken:
            stand.report.row(name, "left out: no time")
            continue
        with stand.report.part(name):
            work = generating(generator, stand.device, batch)
            with torch.inference_mode():
                taken = stand.once(work)
            stand.report.row(name, f"{taken:.1f} s")
            _generator_row(stand, generator, batch, "compiled", tflops)
            if batch == stand.plan.batch:
                _compiled_films(stand, networks, cache)


def _compiled_films(stand: Stand, networks: Networks, cache: Path) -> None:
    crews: list[Crew] = []
    frame = stand.plan.clips[0]
    again = stand.once(lambda: crews.append(hire(stand, networks, frame, cache)))
    stand.report.row("a worker's warm up, compiled before", f"{again:.1f} s")
    film_in_memory(crews[0])
    film_jobs(crews[0], *frame)


if __name__ == "__main__":
    main()
