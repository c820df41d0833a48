"""The values that settings take, and what is told of them where they are listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr, StringConstraints


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Say to an operator what the type and the default of a setting do not."""

    #: Which values it takes.
    values: str | None = None
    #: What holds where it is not set.
    unset: str | None = None


@dataclass(frozen=True, slots=True)
class FirstOf:
    """Mark a setting that has several variables, of which the first counts that is set."""

    variables: Sequence[str]


class EngineName(StrEnum):
    """Name an engine that the worker can be told to use."""

    MUSETALK = "musetalk"
    PREVIEW = "preview"


class DtypeName(StrEnum):
    """Name a precision of the networks; auto is half on CUDA and single elsewhere."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class EncoderName(StrEnum):
    """Name an encoder that the worker can be told to use; auto is NVENC where it works."""

    AUTO = "auto"
    NVENC = "nvenc"
    LIBX264 = "libx264"


def _comma_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = (name.strip().lower() for name in value.split(","))
    return frozenset(name for name in names if name not in ("", "false"))


def _printable(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise ValueError("must be printable ASCII without spaces, as a header carries it")
    return secret


def _digest(value: object) -> object:
    """Leave of an image's full name what registries call it by."""
    return value.rpartition("@")[2] if isinstance(value, str) else value


HostNames = Annotated[
    frozenset[str],
    BeforeValidator(_comma_list),
    Words(values="host names and addresses, a comma between two"),
]
HeaderSecret = Annotated[
    SecretStr, AfterValidator(_printable), Words(values="printable ASCII without spaces")
]
BaseUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"),
    Words(values="`http` or `https` URL, without user and query"),
]
HostUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s/?#]+/?$"),
    Words(values="`http` or `https` URL, without path"),
]
UrlTemplate = Annotated[
    str,
    StringConstraints(pattern=r"\{key\}"),
    Words(values="URL with `{key}` in it, and `{bucket}` if need be"),
]
DeviceName = Annotated[
    str,
    StringConstraints(pattern=r"^(auto|cpu|cuda(:\d+)?)$"),
    Words(values="`auto`, `cpu`, `cuda` or `cuda:N`"),
]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$"), Words(values="40 hex digits")]
ImageDigest = Annotated[
    str,
    BeforeValidator(_digest),
    StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$"),
    Words(values="`sha256:` and 64 hex digits, or `name@sha256:…`"),
]
