"""All attack files by name."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from tests.corpus.bombs import BOMBS
from tests.corpus.codecs import CODECS
from tests.corpus.oddities import ODDITIES
from tests.corpus.pointers import POINTERS
from tests.corpus.specimen import Attack, Material
from tests.corpus.strangers import STRANGERS
from tests.corpus.structures import STRUCTURES

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {**POINTERS, **STRUCTURES, **BOMBS, **CODECS, **ODDITIES, **STRANGERS}
)


def write_attacks(place: Path, canary: str) -> dict[str, Path]:
    """Make every file; all of them call themselves a film."""
    files = place / "files"
    files.mkdir()
    honest = Material.prepare(place, canary)

    def write(number: int, name: str) -> Path:
        # Files of the same name are made side by side.
        workshop = place / f"{number}"
        workshop.mkdir()
        target = files / f"{name.replace(' ', '-').replace('/', '-')}.mp4"
        target.write_bytes(ATTACKS[name].make(honest.at(workshop)))
        return target

    with ThreadPoolExecutor(2) as crowd:
        return dict(zip(ATTACKS, crowd.map(write, range(len(ATTACKS)), ATTACKS), strict=True))
