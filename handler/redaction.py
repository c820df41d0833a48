"""Keep secrets out of whatever leaves the worker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]{0,20}:"
#: What to remove, and what of it to keep: passwords, signed queries, and queries without their URL.
_SECRETS = (
    (re.compile(rf"({_SCHEME}//)[^\s/?#\"<>]*@"), r"\1"),
    (re.compile(rf"({_SCHEME}[^\s?#\"<>]*)[?#][^\s\"<>]*"), r"\1"),
    (re.compile(r"[?#][^\s\"<>]*=[^\s\"<>]*"), ""),
)


def redact(text: str) -> str:
    """Remove the query, fragment and user of every URL in a text, and what UTF-8 cannot hold."""
    text = text.encode("utf-8", "backslashreplace").decode()
    for secret, kept in _SECRETS:
        text = secret.sub(kept, text)
    return text


def redact_all(value: Any) -> Any:
    """Redact every string in data, and make the data JSON by writing out whatever is not."""
    if value is None or isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(item) for item in value]
    return redact(str(value))
