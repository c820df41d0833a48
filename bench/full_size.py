"""Measure MuseTalk's networks at their full size on this machine's processor, then a short job.

    .venv/bin/python -m bench.full_size

Takes a quarter of an hour on two cores, 2 GB of disk and 8 GB of memory. The weights are random.
DWPose is left out, and in the job stands a network that costs nothing: it comes as one ONNX file,
which cannot be built from its sizes.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import torch

from bench.footage import Footage
from bench.jobs import Studio
from bench.networks import FULL, write_networks
from bench.passes import HEARING_GFLOP, PASSES, Work, hearing
from bench.report import Report
from bench.timing import seconds
from inference.musetalk.device import Device
from inference.musetalk.models import Networks
from inference.musetalk.parts import musetalk_parts, read_musetalk
from tests.tiny_dwpose import write_tiny_dwpose
from tests.tiny_musetalk import SAMPLE_FACE

BATCHES = (1, 4)
ROUNDS = 3
#: The job: ten frames of the sample.
FRAMES, FPS, SIDE_PIXELS = 10, 25, 512
#: Linux counts resident memory in kibibytes.
KIBIBYTES_PER_MEBIBYTE = 1024


def main() -> None:
    """Print both tables."""
    device = Device.choose("cpu")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_networks(scratch, FULL)
        (scratch / "dwpose").mkdir()
        write_tiny_dwpose(scratch / "dwpose/dw-ll_ucoco_384.onnx", SAMPLE_FACE)
        read = read_musetalk(scratch)
        read.networks.move(device)
        print(f"\nFull size, random weights, {torch.get_num_threads()} cores, {device.dtype}\n")
        with torch.inference_mode():
            _networks(read.networks, device)
        studio = Studio.bare(musetalk_parts(read, device, BATCHES[-1]), scratch)
        _job(studio, Footage.given(sys.argv[1:]).cut(scratch, FRAMES / FPS, *[SIDE_PIXELS] * 2))


def _networks(networks: Networks, device: Device) -> None:
    report = Report("network", *(f"s, {batch} at once" for batch in BATCHES), "GFLOP", "GFLOP/s")
    for each in PASSES:
        taken = [_seconds(each.begin(networks, device, batch)) / batch for batch in BATCHES]
        rate = f"{each.gflop / taken[-1]:.0f}"
        report.row(each.name, *(f"{one:.2f}" for one in taken), f"{each.gflop:.0f}", rate)
    heard = _seconds(hearing(networks, device))
    rate = f"{HEARING_GFLOP / heard:.0f}"
    report.row("Whisper, 30 s of sound", f"{heard:.2f}", "", f"{HEARING_GFLOP:.0f}", rate)


def _seconds(work: Work) -> float:
    # The quickest: it takes minutes, and neighbours can only add to it.
    return min(seconds(work) for _ in range(ROUNDS))


def _job(studio: Studio, footage: Footage) -> None:
    print(f"\nA job of {FRAMES} frames, {SIDE_PIXELS}x{SIDE_PIXELS}, {BATCHES[-1]} at once\n")
    report = Report("what", "s", "s a frame")
    for what, film in (("face new", studio.film_anew), ("face known", studio.film)):
        metrics = film(footage).metrics
        report.row(what, f"{metrics.total_time:.1f}", f"{metrics.total_time / FRAMES:.2f}")
        for step, busy in metrics.engine_times.items():
            report.row(f"  of that busy: {step}", f"{busy:.2f}", f"{busy / FRAMES:.2f}")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIBIBYTES_PER_MEBIBYTE
    print(f"\nPeak memory of this process: {peak_mib:.0f} MiB")


if __name__ == "__main__":
    main()
