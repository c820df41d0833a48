"""What a page of Markdown asks its reader to type, and where its links lead."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_FENCED = re.compile(
    r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE
)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\((?!\w+:)(?P<path>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*=(\{\{.*\}\}|\S*)")


@dataclass(frozen=True, slots=True)
class Page:
    """Hold a page, and find things on it."""

    path: Path

    def blocks(self, kind: str = "") -> list[str]:
        """Return the fenced blocks of a language, without their indent."""
        return [
            re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
            for found in _FENCED.finditer(self._text)
            if found["kind"] == kind
        ]

    def commands(self) -> Iterator[list[str]]:
        """Yield what is to be typed, as a shell would split it: less sudo, settings and paths."""
        for block in self.blocks():
            for line in block.replace("\\\n", " ").splitlines():
                yield from _command(shlex.split(line, comments=True))

    def mentions(self) -> Iterator[list[str]]:
        """Yield what stands in the text itself and may be a command."""
        for words in _INLINE.findall(_FENCED.sub("", self._text)):
            try:
                yield from _command(shlex.split(words))
            except ValueError:
                # A quotation mark in what is no command.
                continue

    def settings(self) -> list[str]:
        """Return the blocks that are files of NAME=VALUE."""
        return [
            block for block in self.blocks() if all(map(_SETTING.fullmatch, block.splitlines()))
        ]

    def links(self) -> Iterator[tuple[str, str | None]]:
        """Yield the path and the anchor of each link to a place in the repository."""
        for found in _LINK.finditer(_FENCED.sub("", self._text)):
            yield found["path"], found["anchor"]

    def anchors(self) -> set[str]:
        """Return what headings are called in links."""
        headings = _HEADING.findall(_FENCED.sub("", self._text))
        return {
            re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings
        }

    @property
    def _text(self) -> str:
        return self.path.read_text(encoding="utf-8")


def _command(words: Sequence[str]) -> Iterator[list[str]]:
    left = list(words)
    while left and (left[0] == "sudo" or _SETTING.fullmatch(left[0])):
        left.pop(0)
    if left:
        yield [left[0].rpartition("/")[2], *left[1:]]
