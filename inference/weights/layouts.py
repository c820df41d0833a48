"""Where the weights lie, on machines that give them a place of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from inference.weights.listing import WEIGHTS, WeightsError, WeightsFile, missing_weights

#: Where RunPod mounts network volumes, and the cached models of an endpoint.
RUNPOD_VOLUME = Path("/runpod-volume")
#: The weights on a network volume, below its mount.
ON_VOLUME = "musetalk/weights"
#: The hub's cache below it, which holds a repository as ``models--owner--name``.
HUB_CACHE = "huggingface-cache/hub"


def locate_weights(
    usual: Path, volume: Path = RUNPOD_VOLUME, listing: Sequence[WeightsFile] = WEIGHTS
) -> Path:
    """Return the first directory that has every file: the usual one, a cached model, a volume's.

    The usual one if none has, so that it is what a message about missing files names. A place that
    has only some of the files is never mixed with another. Raises :class:`WeightsError` if this
    user may not look.
    """
    try:
        places = (usual, *_snapshots(volume / HUB_CACHE), volume / ON_VOLUME)
        return next((place for place in places if not missing_weights(place, listing)), usual)
    except PermissionError as error:
        raise WeightsError(f"The weights cannot be looked for: {error}.") from error


def _snapshots(cache: Path) -> Iterator[Path]:
    """Yield the commits of each cached repository, the one that its main branch has first.

    Source: huggingface_hub, ``file_download.py``.
    """
    for repository in sorted(cache.glob("models--*")):
        with suppress(FileNotFoundError):
            yield repository / "snapshots" / (repository / "refs/main").read_text().strip()
        yield from sorted(repository.glob("snapshots/*"))
