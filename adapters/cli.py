"""The command line: one job from local files or URLs, the contract's schemas, a look at the worker.

What a command needs is imported when it runs: ``--help`` must not wait for OpenCV.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from adapters.weights_commands import weights_app

if TYPE_CHECKING:
    from adapters.config import Config
    from handler.ports import Runtime

app = typer.Typer(
    name="musetalk-worker",
    help="Make a face talk: face video + voice -> lip-synced video.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(weights_app(), name="weights")

#: Exit codes: the job has its video; the job failed; the command or a setting is wrong.
DONE, FAILED, MISUSED = 0, 1, 2
#: Columns and lines where nobody tells of a terminal.
SCREEN = (100, 24)
#: Of what is well, of what is not, and of what to do about it.
COLOURS = {True: "green", False: "red", None: None}


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def run(
    job: Annotated[
        Path | None, typer.Argument(help="A job as JSON; - reads it from stdin.")
    ] = None,
    video: Annotated[str | None, typer.Option(help="Face: a path or a URL.")] = None,
    audio: Annotated[str | None, typer.Option(help="Voice: a path or a URL.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the video.")] = None,
    engine: Annotated[str | None, typer.Option(help="musetalk or preview.")] = None,
    sync_mode: Annotated[
        str | None, typer.Option(help="bounce, loop, cut_off, silence or remap.")
    ] = None,
    resolution: Annotated[str | None, typer.Option(help="A cap: 720p or 512x512.")] = None,
    aspect_ratio: Annotated[str | None, typer.Option(help="Such as 9:16; see params.fit.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="An option of the job, such as fit=crop or crf=23.")
    ] = None,
) -> None:
    """Run one job and print its result as JSON.

    Exit code 0 if the video is there, 1 if the job failed, 2 if the command or a setting is wrong.
    """
    from adapters.progress_bar import handle_watched

    raw = _read_job(job)
    flags = {
        "video_url": video,
        "audio_url": audio,
        "sync_mode": sync_mode,
        "resolution": resolution,
        "aspect_ratio": aspect_ratio,
    }
    raw |= {name: value for name, value in flags.items() if value is not None}
    options = dict(_option(text) for text in param or [])
    if options:
        given = raw.get("params") or {}
        # Anything but an object is left for the job's own check to refuse.
        raw["params"] = {**given, **options} if isinstance(given, dict) else given
    for name in ("video_url", "audio_url"):
        if isinstance(raw.get(name), str):
            raw[name] = _as_url(raw[name])
    env = {**os.environ, **({"MUSETALK_ENGINE": engine} if engine else {})}
    result = handle_watched(raw, _runtime(env, raw, out))
    typer.echo(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    raise typer.Exit(DONE if result.status == "success" else FAILED)


@app.command()
def bench(
    *,
    video: Annotated[str, typer.Option(help="Face: a path or a URL.")],
    audio: Annotated[str, typer.Option(help="Voice: a path or a URL.")],
    rounds: Annotated[int, typer.Option(min=1, help="Jobs with a known face.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure what a minute of video costs here, in seconds of the worker.

    Exit code 0 if that was measured, 1 if a job failed, 2 if the command or a setting is wrong.
    """
    from adapters.benchmark import JobFailed, measure
    from adapters.config import Config, ConfigError
    from adapters.progress_bar import handle_watched

    try:
        config = Config.from_env(os.environ)
        # Stdout is for what was measured, whatever a library prints.
        with redirect_stdout(sys.stderr):
            measured = measure(config, _as_url(video), _as_url(audio), rounds, handle_watched)
    except ConfigError as error:
        _misused(str(error))
    except JobFailed as failed:
        typer.echo(f"{failed}", err=True)
        raise typer.Exit(FAILED) from failed
    text = json.dumps(measured.to_json(), indent=2) if as_json else "\n".join(measured.table())
    typer.echo(text)


@app.command()
def schema(
    name: Annotated[str | None, typer.Argument(help="job, result or failure; else all.")] = None,
) -> None:
    """Print the JSON Schemas of what callers send and get."""
    from handler import Failure, Job, Success

    schemas = {
        "job": Job.model_json_schema(),
        "result": Success.model_json_schema(mode="serialization"),
        "failure": Failure.model_json_schema(mode="serialization"),
    }
    if name is not None and name not in schemas:
        _misused(f"There is no schema named {name}; there are {', '.join(schemas)}.")
    typer.echo(json.dumps(schemas[name] if name else schemas, indent=2))


@app.command()
def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say why the worker could not take a job, and what to do about it.

    Exit code 0 if it could, 1 if it could not, 2 if a setting is wrong.
    """
    from adapters.config import Config, ConfigError
    from adapters.doctor import examine, misconfigured

    try:
        config = Config.from_env(os.environ)
    except ConfigError as error:
        if not as_json:
            _misused(str(error))
        typer.echo(json.dumps(misconfigured(error).to_json(), indent=2))
        raise typer.Exit(MISUSED) from error
    # Stdout is for what was found, whatever a library prints.
    with redirect_stdout(sys.stderr):
        diagnosis = examine(config)
    if as_json:
        typer.echo(json.dumps(diagnosis.to_json(), indent=2))
    else:
        for line in diagnosis.screen(shutil.get_terminal_size(SCREEN).columns):
            typer.secho(line.text, fg=COLOURS[line.fine])
    raise typer.Exit(DONE if diagnosis.fine else FAILED)


@app.command()
def runpod() -> None:
    """Take jobs from RunPod serverless, inside one of its workers, until it stops this worker."""
    from adapters.runpod_serverless import main

    main()


@app.command()
def serve() -> None:
    """Take jobs over HTTP until told to stop; exit code 2 if the worker cannot start."""
    from adapters.config import Config, ConfigError

    with _extra("serve"):
        from adapters import http_server

    try:
        config = Config.from_env(os.environ, supervised=True)
        http_server.serve(config, partial(_load, config))
    except ConfigError as error:
        _misused(str(error))


@app.command()
def local() -> None:
    """Take jobs from an orchestrator, and over HTTP, until told to stop.

    Exit code 2 if the worker cannot start, 75 if the GPU failed.
    """
    from adapters.config import Config, ConfigError

    with _extra("serve"):
        from adapters.local_worker import main

    try:
        config = Config.from_env(os.environ, supervised=True)
        raise typer.Exit(main(config, partial(_load, config)))
    except ConfigError as error:
        _misused(str(error))


def _load(config: Config) -> Runtime:
    from adapters.bootstrap import bootstrap

    return bootstrap(config)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say what to install where a command needs more than the core's libraries."""
    try:
        yield
    except ImportError as error:
        _misused(f"{error.name} is not installed: install the worker as musetalk-worker[{name}].")


def _read_job(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
        job = json.loads(text)
    except (OSError, ValueError) as error:
        _misused(f"The job cannot be read from {path}: {error}")
    if not isinstance(job, dict):
        _misused(f"The job in {path} is not a JSON object.")
    return job


def _option(text: str) -> tuple[str, Any]:
    """Read ``name=value``, the value as JSON where it is any, else as a word."""
    name, given, value = text.partition("=")
    if not given:
        _misused(f"--param takes name=value, not {text!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _as_url(text: str) -> str:
    return text if "://" in text else Path(text).absolute().as_uri()


def _runtime(env: Mapping[str, str], raw: Mapping[str, Any], out: Path | None) -> Runtime:
    from adapters.bootstrap import bootstrap, web_fetch
    from adapters.config import Config, ConfigError
    from adapters.transfer.local import FileStore, LocalFetch

    try:
        config = Config.from_env(env)
        if out is None and not config.has_storage and "output" not in raw:
            _misused("Say where the video goes: --out FILE, OUTPUT_DIR or a bucket.")
        if out is not None and out.is_dir():
            _misused(f"--out {out} is a directory; name the file to write.")
        store = FileStore(out) if out is not None else None
        return bootstrap(config, fetch=LocalFetch(web_fetch(config)), store=store)
    except ConfigError as error:
        _misused(str(error))


def _misused(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(MISUSED)
