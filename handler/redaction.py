"""Keep secrets out of whatever leaves the worker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: A URL up to its query: what follows may be a signature. User names and passwords go too.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?:[^\s/@?#'\"]*@)?(?P<rest>[^\s?#'\"<>]*)"
    r"(?:[?#][^\s'\"<>)]*)?"
)


def redact(text: str) -> str:
    """Remove the query, fragment and user of every URL in a text."""
    return _URL.sub(lambda match: match["scheme"] + match["rest"], text)


def redact_all(value: Any) -> Any:
    """Redact every string in JSON-like data."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redact_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(item) for item in value]
    return value
