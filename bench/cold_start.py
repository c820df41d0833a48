"""Print how long each step of a cold start takes, as JSON: a process of its own, begun for it.

.venv/bin/python -m bench.cold_start WEIGHTS BATCH
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

from inference.weights.readahead import reading_ahead


def main() -> None:
    """Start as a worker does; imports are the first step."""
    weights, batch = Path(sys.argv[1]), int(sys.argv[2])
    marks = [time.perf_counter()]
    with reading_ahead(weights):
        import torch  # noqa: PLC0415

        import inference.engine  # noqa: F401, PLC0415
        from inference.musetalk.device import Device  # noqa: PLC0415
        from inference.musetalk.face_reader import FaceReader  # noqa: PLC0415
        from inference.musetalk.generator import MuseTalkMouth  # noqa: PLC0415
        from inference.musetalk.models import read_networks  # noqa: PLC0415

        marks.append(time.perf_counter())
        networks = read_networks(weights)
    marks.append(time.perf_counter())
    device = Device.choose()
    # The device answers once all that was asked of it before is done.
    torch.zeros(1, device=device.place).item()
    marks.append(time.perf_counter())
    networks.move(device)
    torch.zeros(1, device=device.place).item()
    marks.append(time.perf_counter())
    MuseTalkMouth(networks, device).warm_up(batch)
    FaceReader(networks, device).warm_up(batch)
    marks.append(time.perf_counter())
    steps = ("import", "read", "open the device", "move", "warm up")
    taken = (end - start for start, end in pairwise(marks))
    print(json.dumps(dict(zip(steps, taken, strict=True))))


if __name__ == "__main__":
    main()
