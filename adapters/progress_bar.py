"""A job of the command line, and on stderr how far it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from handler import WorkerBroken, handle
from handler.ports import Runtime
from handler.progress import Progress, Report
from handler.result import Result


def handle_watched(raw: Mapping[str, Any], runtime: Runtime) -> Result:
    """Run one job and show how far it is; a worker that breaks is a failure like any other."""
    with _progress_bar() as report:
        try:
            return handle(raw, runtime, report)
        except WorkerBroken as broken:
            return broken.failure


@contextmanager
def _progress_bar() -> Iterator[Report]:
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=1.0)

        def report(progress: Progress) -> None:
            bar.update(task, completed=progress.fraction, description=progress.phase.value)

        yield report
