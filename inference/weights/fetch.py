"""Bringing the weights from the public repositories, each file checked before it has its name."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.utils.tqdm import tqdm

from inference.weights.listing import FETCH_COMMAND, WEIGHTS, WeightsError, WeightsFile
from inference.weights.lock import read_lock, settle
from inference.weights.verify import Finding, Verdict, judge, pin_findings, verify_weights

#: Where files arrive: beside the others, so that a checked one moves in one step.
INCOMING = ".incoming-"
#: No download stands still for so long: whoever began it was killed.
ABANDONED_SECONDS = 600

#: Is told, again and again, how many bytes of a file have come.
Report = Callable[[WeightsFile, int], None]


def fetch_weights(
    directory: Path,
    report: Report,
    listing: Sequence[WeightsFile] = WEIGHTS,
    endpoint: str | None = None,
) -> Sequence[WeightsFile]:
    """Bring what a directory lacks or has wrong, and return it; what is right is left alone.

    A broken connection is taken up where it broke; what arrived whole is kept when a later file
    fails. ``endpoint`` is the hub's address, by default huggingface_hub's own setting. Raises
    :class:`WeightsError`, which says what to do, if a file does not come or is not what it should
    be; nothing of such a file stays.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _sweep(directory)
        findings = verify_weights(directory, listing, thorough=False)
        pin_findings(directory, findings)
        wanted = [_wanted(finding) for finding in findings if not finding.usable]
        for file in wanted:
            with tempfile.TemporaryDirectory(prefix=INCOMING, dir=directory) as place:
                arrived = _download(file, Path(place), report, endpoint)
                _admit(file, arrived, directory)
    except OSError as error:
        raise WeightsError(f"The weights cannot be written: {error}.") from error
    return wanted


def _sweep(directory: Path) -> None:
    """Remove what fetches left that were killed."""
    for place in directory.glob(f"{INCOMING}*"):
        # Another fetch may be sweeping, too, or just be done.
        with suppress(FileNotFoundError):
            latest = max(path.stat().st_mtime for path in (place, *place.rglob("*")))
            if time.time() - latest > ABANDONED_SECONDS:
                shutil.rmtree(place)


def _wanted(finding: Finding) -> WeightsFile:
    if finding.verdict is not Verdict.MISSING and not finding.published:
        raise WeightsError(
            f"{finding.path} is not what it was when it was converted ({finding.verdict}): convert"
            f" it again, or delete it to have `{FETCH_COMMAND}` bring the published file."
        )
    return finding.file


def _download(file: WeightsFile, place: Path, report: Report, endpoint: str | None) -> Path:
    try:
        arrived = hf_hub_download(
            file.repository,
            file.name,
            revision=file.revision,
            local_dir=place,
            endpoint=endpoint,
            tqdm_class=_bar(file, report),
        )
    except Exception as error:
        # What the hub's libraries raise has no common base, and says more in its cause.
        reason = str(error.__cause__ or error).partition("\n")[0].rstrip(".")
        raise WeightsError(
            f"{file.path} does not come from {file.repository}: {reason}. Run `{FETCH_COMMAND}`"
            " again when that is mended; the files that came are kept."
        ) from error
    return Path(arrived)


def _admit(file: WeightsFile, arrived: Path, directory: Path) -> None:
    """Give a file its name and its pin if it is what it should be."""
    # Set before it is pinned: the pin holds the file's time.
    settle(arrived)
    finding = judge(arrived, file, file.path, read_lock(directory).get(file.path))
    if not finding.usable:
        raise WeightsError(
            f"{file.path} came from {file.repository} with the {finding.verdict} and was deleted."
            f" Run `{FETCH_COMMAND}` again; if it is so again, what HF_ENDPOINT names, or a proxy,"
            " does not give what was published."
        )
    target = directory / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    arrived.replace(target)
    pin_findings(directory, [finding])


def _bar(file: WeightsFile, report: Report) -> type[tqdm]:
    """Return what huggingface_hub takes for a progress bar: it draws nothing, and reports."""

    class Bar(tqdm):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options | {"disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            report(file, int(self.n))

        def update_transfer(self, n: float | None = 1) -> None:
            """Leave out what came over the wire: it is counted again when it is in the file."""

        def set_transfer_postfix_str(self, *words: Any, **options: Any) -> None:
            """Leave out how fast it came."""

    return Bar
