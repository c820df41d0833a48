"""Tell what each environment variable does: build/configuration.py > docs/configuration.md.

What the worker reads is told by the settings' own definitions in adapters/config.py: this script
only sorts it. --check compares the page with them, and exits with 1 if it is out of date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from enum import Enum, StrEnum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from adapters.config import Config
from adapters.runpod_sdk import DISCREET_LEVELS
from adapters.values import FirstOf, Words

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
COMMAND = "python build/configuration.py > docs/configuration.md"

HEAD = f"""# Settings

<!-- Made by `{COMMAND}`: change adapters/config.py instead. -->

Every setting is an environment variable. It is read once, when the worker starts. A variable that
is set to nothing counts as not set. A bad value stops the start, and the message names the
variable. A *secret* is never printed or logged, and the engine's process does not get it.
`musetalk-worker doctor` says what the worker makes of its settings.
"""


class Group(NamedTuple):
    """Hold the settings from one field of ``Config`` up to the next group's first."""

    title: str
    first: str
    readers: str


class Foreign(NamedTuple):
    """Tell of a variable that is no setting of the worker: another program's, or a deployment's."""

    name: str
    reader: str
    text: str


EVERY = "every door and command"
GROUPS = (
    Group("Engine", "engine", EVERY),
    Group("Storage", "b2_key_id", EVERY),
    Group("Limits", "job_timeout_sec", EVERY),
    Group("Media from your own network, webhooks", "allow_http", EVERY),
    Group("Traces", "otlp_endpoint", EVERY),
    Group("HTTP", "host", "`serve`, `local`"),
    Group("The orchestrator's queue", "orchestrator_base_url", "`local`"),
    Group("Stopping", "drain_sec", "`serve`, `local`"),
    Group("Who the worker is", "worker_id", EVERY),
    Group("Which queue it works for", "main_worker_id", "`local`"),
)

#: Read where the worker runs, by itself or by a library.
BESIDE = (
    Foreign("PATH", EVERY, "Where `ffmpeg`, `ffprobe`, `prlimit` and `nvidia-smi` are looked for."),
    Foreign("TMPDIR", EVERY, "The temporary directory, in which jobs have their files."),
    Foreign(
        "RUNPOD_WEBHOOK_GET_JOB",
        "`runpod`",
        "Set by RunPod in its serverless workers. Without it this door does not open.",
    ),
    Foreign(
        "RUNPOD_LOG_LEVEL",
        "`runpod`",
        f"What RunPod's SDK logs: {', '.join(sorted(DISCREET_LEVELS))}. Anything else counts as"
        " INFO, for the SDK would print results.",
    ),
    Foreign("MODAL_TASK_ID", "Modal", "Set by Modal; names the worker where `WORKER_ID` does not."),
    Foreign("HF_ENDPOINT", "`weights fetch`", "Another address of the hub of weights."),
    Foreign("HF_TOKEN", "`weights fetch`", "*secret* A token for that hub. None is needed."),
    Foreign("HF_HUB_OFFLINE", "`weights fetch`", "`1` forbids to ask the hub. The image sets it."),
)

#: Read where somebody builds or deploys, never by a worker.
DEPLOYMENT = (
    Foreign("MUSETALK_GPUS", "`modal deploy`", "GPUs to ask for, the preferred one first."),
    Foreign("MUSETALK_MIN_CONTAINERS", "`modal deploy`", "Containers that wait for jobs, paid."),
    Foreign("MUSETALK_MAX_CONTAINERS", "`modal deploy`", "The most containers at once."),
    Foreign("MUSETALK_SCALEDOWN_SEC", "`modal deploy`", "Seconds until an idle container goes."),
    Foreign("MUSETALK_GPU_SNAPSHOT", "`modal deploy`", "`1` snapshots the GPU's memory, too."),
    Foreign(
        "RUNPOD_API_KEY",
        "`build/deploy_runpod.py`",
        "*secret* The key that templates and endpoints are made with.",
    ),
    Foreign("WEIGHTS", "`docker build`", "`baked` into the image, or left to a `volume`."),
    Foreign("VERSION", "`docker build`", "The worker's version, for the image's build record."),
    Foreign(
        "GIT_COMMIT",
        "`docker build`, `modal deploy`",
        "The commit, for the image's build record, or for the setting of this name.",
    ),
)


def page() -> str:
    """Return the whole page; raise :class:`ValueError` if a setting is not described."""
    return "\n".join([HEAD, *_settings(), *_others()])


def _settings() -> Iterator[str]:
    """Yield the lines of all groups."""
    heads = {group.first: group for group in GROUPS}
    for name, field in Config.model_fields.items():
        if group := heads.get(name):
            yield from _table(f"{group.title}\n\nRead by {group.readers}.", SETTING)
        yield row(name, field)
    yield ""


def _others() -> Iterator[str]:
    yield from _table(
        "What others read where the worker runs\n\nThese are no settings of the worker.", FOREIGN
    )
    yield from (_row(f"`{each.name}`", each.reader, each.text) for each in BESIDE)
    yield from _table(
        "When deploying\n\nDefaults and more: [Modal](deploy-modal.md), [RunPod](deploy-runpod.md),"
        " [Salad and Vast](deploy-salad-vast.md), [a machine of one's own](deploy-local.md),"
        " [the image](image.md).",
        FOREIGN,
    )
    yield from (_row(f"`{each.name}`", each.reader, each.text) for each in DEPLOYMENT)
    yield ""


SETTING = ("variable", "takes", "if not set", "")
FOREIGN = ("variable", "read by", "")


def _table(title: str, columns: Sequence[str]) -> Iterator[str]:
    yield from ("", f"## {title}", "", _row(*columns), "|---" * len(columns) + "|")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def row(name: str, field: FieldInfo) -> str:
    """Return a setting's row; raise :class:`ValueError` if nothing is said of it."""
    if not field.description:
        raise ValueError(f"Config.{name} has no description.")
    marks = [*field.metadata, *_flat(field.annotation)]
    words = [mark for mark in marks if isinstance(mark, Words)]
    unset = next((each.unset for each in words if each.unset), None) or _default(field)
    values = next((each.values for each in words if each.values), None) or _values(marks)
    secret = "*secret* " if SecretStr in marks else ""
    text = " ".join(field.description.split())
    return _row(_names(name, field, marks), secret + values, unset, text)


def _names(name: str, field: FieldInfo, marks: Sequence[Any]) -> str:
    several = next((mark.variables for mark in marks if isinstance(mark, FirstOf)), None)
    if several:
        return ", else ".join(f"`{each}`" for each in several)
    if field.alias is None:
        raise ValueError(f"Config.{name} has no variable.")
    return f"`{field.alias}`"


def _flat(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation is made of, and what is remarked of them."""
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        yield from parts[1:]
        yield from _flat(parts[0])
    elif get_origin(annotation) in {Union, UnionType}:
        for part in parts:
            yield from _flat(part)
    else:
        yield annotation


def _values(marks: Sequence[Any]) -> str:
    """Return which values are taken, as the type says."""
    for kind in marks:
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return ", ".join(f"`{value}`" for value in kind)
    if bool in marks:
        return "`true`, `false`"
    if int in marks or float in marks:
        return f"{'whole number' if int in marks else 'number'}{_bounds(marks)}"
    return "path" if Path in marks else "text"


def _bounds(marks: Sequence[Any]) -> str:
    least = next((mark.ge for mark in marks if isinstance(mark, Ge)), None)
    most = next((mark.le for mark in marks if isinstance(mark, Le)), None)
    above = next((mark.gt for mark in marks if isinstance(mark, Gt)), None)
    if above is not None:
        return f" above {above}"
    if least is None:
        return ""
    return f" from {least}" + ("" if most is None else f" to {most}")


def _default(field: FieldInfo) -> str:
    """Return what holds where a variable is not set, as the default says."""
    default = field.default
    if default is PydanticUndefined or default is None or default == frozenset():
        return "none"
    if isinstance(default, Enum | bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def main() -> None:
    """Print the page, or with --check compare it with docs/configuration.md."""
    parser = argparse.ArgumentParser(description="Tell what each environment variable does.")
    parser.add_argument("--check", action="store_true", help="Exit with 1 if it is out of date.")
    try:
        text = page()
    except ValueError as error:
        sys.exit(str(error))
    if not parser.parse_args().check:
        print(text, end="")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"docs/configuration.md is out of date: {COMMAND}")


if __name__ == "__main__":
    main()
