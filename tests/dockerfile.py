"""Read a Dockerfile as far as ours goes: stages of instructions, each on one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_FROM = re.compile(r"(?P<base>\S+)(?: AS (?P<name>\S+))?")


@dataclass(frozen=True, slots=True)
class Instruction:
    """Hold one instruction: its word in capitals, and the rest."""

    word: str
    rest: str

    @property
    def argv(self) -> Sequence[str]:
        """Return the words of exec form; raise ``ValueError`` for a line for a shell."""
        words = json.loads(self.rest[self.rest.index("[") :])
        return [str(word) for word in words]


@dataclass(frozen=True, slots=True)
class Stage:
    """Hold what is between one FROM and the next."""

    base: str
    name: str | None
    instructions: Sequence[Instruction]

    def all(self, word: str) -> Sequence[str]:
        """Return what follows each instruction of a word."""
        return [each.rest for each in self.instructions if each.word == word]

    def only(self, word: str) -> Instruction:
        """Return the one instruction of a word."""
        (found,) = (each for each in self.instructions if each.word == word)
        return found


def read_stages(path: Path) -> Sequence[Stage]:
    """Return the stages of a Dockerfile; what comes before the first is left out."""
    stages: list[tuple[str, list[Instruction]]] = []
    for instruction in _instructions(path.read_text(encoding="utf-8")):
        if instruction.word == "FROM":
            stages.append((instruction.rest, []))
        elif stages:
            stages[-1][1].append(instruction)
    return [_stage(source, instructions) for source, instructions in stages]


def environment(stages: Sequence[Stage]) -> dict[str, str]:
    """Return the variables that stages set, later ones last."""
    return {
        name: value
        for stage in stages
        for line in stage.all("ENV")
        for name, value in (word.split("=", 1) for word in line.split())
    }


def _stage(source: str, instructions: Sequence[Instruction]) -> Stage:
    match = _FROM.fullmatch(source)
    assert match, source
    return Stage(match["base"], match["name"], instructions)


def _instructions(text: str) -> Iterator[Instruction]:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if words := line.split(maxsplit=1):
            yield Instruction(words[0], " ".join(words[1].split()))
