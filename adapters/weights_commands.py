"""The commands that bring the weights and look after them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from inference.weights import (
    FETCH_COMMAND,
    WEIGHTS,
    Finding,
    Verdict,
    WeightsError,
    WeightsFile,
    pin_findings,
    verify_weights,
)

if TYPE_CHECKING:
    from rich.progress import TaskID

    from inference.weights.fetch import Report

#: Exit codes: the weights are not right; the command or a setting is wrong.
WRONG, MISUSED = 1, 2


def weights_app(
    listing: Sequence[WeightsFile] = WEIGHTS, endpoint: str | None = None
) -> typer.Typer:
    """Return the commands for some files, which come from a hub's address or its usual one."""
    app = typer.Typer(
        help="Bring the weights into MUSETALK_WEIGHTS_DIR, and look after them.",
        no_args_is_help=True,
    )

    @app.command()
    def fetch() -> None:
        """Bring the files that are missing or wrong; exit code 1 if one does not come.

        HF_ENDPOINT and HF_TOKEN are huggingface_hub's own.
        """
        _fetch(_directory(), listing, endpoint)

    @app.command()
    def verify() -> None:
        """Read every file and say how it stands; exit code 1 if one is missing or wrong."""
        _verify(_directory(), listing)

    return app


def _directory() -> Path:
    from adapters.config import Config, ConfigError  # noqa: PLC0415 - --help does without

    try:
        return Config.from_env(os.environ).weights_dir
    except ConfigError as error:
        _end(str(error), MISUSED)


def _fetch(directory: Path, listing: Sequence[WeightsFile], endpoint: str | None) -> None:
    try:
        from inference.weights.fetch import fetch_weights  # noqa: PLC0415 - --help does without
    except ImportError as error:
        _end(f"{error.name} is missing: install the worker as musetalk-worker[musetalk].", MISUSED)
    try:
        with _progress_bars() as report:
            fetched = fetch_weights(directory, report, listing, endpoint)
    except WeightsError as error:
        _end(str(error), WRONG)
    typer.echo(f"{directory}: {len(fetched)} fetched, {len(listing) - len(fetched)} were right.")
    for repository, licence in {file.repository: file.licence for file in listing}.items():
        typer.echo(f"  {repository}: {licence}")


@contextmanager
def _progress_bars() -> Iterator[Report]:
    from rich.console import Console  # noqa: PLC0415 - --help does without
    from rich.progress import (  # noqa: PLC0415 - --help does without
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description:<36}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(file: WeightsFile, size_bytes: int) -> None:
            if file.path not in tasks:
                tasks[file.path] = bars.add_task(file.path, total=file.size_bytes)
            bars.update(tasks[file.path], completed=size_bytes)

        yield report


def _verify(directory: Path, listing: Sequence[WeightsFile]) -> None:
    try:
        findings = verify_weights(directory, listing)
    except WeightsError as error:
        _end(str(error), WRONG)
    unknown = _pin(directory, findings)
    width = max(len(finding.path) for finding in findings)
    for finding in findings:
        words = unknown if finding.verdict is Verdict.UNKNOWN else finding.verdict
        typer.secho(f"{finding.path:<{width}}  {words}", fg=None if finding.usable else "red")
    if mending := _mending(findings):
        _end(f"{directory} is not as it should be: {mending}.", WRONG)


def _pin(directory: Path, findings: Sequence[Finding]) -> str:
    """Pin what was found, and say what became of the files that nothing was known of."""
    try:
        pin_findings(directory, findings)
    except OSError as error:
        return f"{Verdict.UNKNOWN}, and cannot be pinned: {error}"
    return f"{Verdict.UNKNOWN}: pinned now"


def _mending(findings: Sequence[Finding]) -> str:
    """Say what to do about the findings; nothing if there is nothing to do."""
    faults = [finding for finding in findings if not finding.usable]
    converted = [finding.path for finding in faults if not finding.published]
    advice = []
    if converted:
        advice.append(f"convert again, or delete and fetch, {', '.join(converted)}")
    if len(faults) > len(converted):
        advice.append(f"run `{FETCH_COMMAND}`")
    return "; ".join(advice)


def _end(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
