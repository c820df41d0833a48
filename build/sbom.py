"""Write a bill of materials, CycloneDX 1.6: python build/sbom.py BOM.json [--weights DIRECTORY].

Lists what is really there: each Python distribution that is installed beside the interpreter, with
its licence, ffmpeg, and the files of weights. Needs cyclonedx-bom, which may lie apart from what is
listed: --python names another interpreter, and nothing has to be installed there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from handler.errors import ToolMissing
from inference.media.child import ChildFailed
from inference.media.tools import ffmpeg_version
from inference.weights import WEIGHTS, WeightsError, WeightsFile, verify_weights

#: The distribution that the rest is there for.
WORKER = "musetalk-worker"
#: Prints where an interpreter looks for what is installed.
ASK_PATH = "import json, sys; print(json.dumps(sys.path))"
#: By this name the checksum of what a distribution installed is told.
RECORD_PROPERTY = "musetalk-worker:record-sha256"

Component = dict[str, Any]


class Incomplete(Exception):
    """The bill would not tell all; the message says what is missing."""


def main(words: Sequence[str] | None = None, listing: Sequence[WeightsFile] = WEIGHTS) -> None:
    """Write the bill, or end in :class:`SystemExit` with what is missing and no bill."""
    parser = argparse.ArgumentParser(description="Write a bill of materials.")
    parser.add_argument("bill", type=Path)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--weights", type=Path, help="A weights directory that is shipped, too.")
    told = parser.parse_args(words)
    try:
        bill = bill_of(told.python)
        bill["components"].append(ffmpeg_component())
        if told.weights:
            bill["components"] += weights_components(told.weights, listing)
        write_bill(told.bill, bill)
    except (Incomplete, WeightsError, ToolMissing, ChildFailed, OSError) as error:
        sys.exit(str(error))
    print(f"{told.bill}: {len(bill['components'])} components")


def bill_of(python: Path) -> dict[str, Any]:
    """Return the bill of what an interpreter has, of which the worker is the main component.

    Raises :class:`Incomplete` if the worker is not installed there.
    """
    words = ("--output-reproducible", "--no-validate", "--spec-version", "1.6", str(python))
    command = [sys.executable, "-m", "cyclonedx_py", "environment", *words]
    bill: dict[str, Any] = json.loads(_run(command))
    records = dict(_records(json.loads(_run([str(python), "-c", ASK_PATH]))))
    for component in bill.setdefault("components", []):
        # Where it was installed from is a place on the machine that built.
        component.pop("externalReferences", None)
        if record := records.get(_normal(component["name"])):
            component["properties"] = [{"name": RECORD_PROPERTY, "value": record}]
    workers = [part for part in bill["components"] if part["name"] == WORKER]
    if not workers:
        raise Incomplete(f"{WORKER} is not installed for {python}.")
    bill["metadata"]["component"] = {**workers[0], "type": "application"}
    bill["components"].remove(workers[0])
    return bill


def _records(path: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield distributions by the checksums of their RECORD, which has those of all their files."""
    for distribution in distributions(path=list(path)):
        if record := distribution.read_text("RECORD"):
            yield _normal(distribution.name), hashlib.sha256(record.encode()).hexdigest()


def _normal(name: str) -> str:
    """Return the one name that all spellings of a distribution's name stand for (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def ffmpeg_component() -> Component:
    """Return what the worker calls to read and write media."""
    version = ffmpeg_version()
    return {"type": "application", "name": "ffmpeg", "version": version, "bom-ref": "ffmpeg"}


def weights_components(directory: Path, listing: Sequence[WeightsFile]) -> Iterator[Component]:
    """Yield the files of weights that are in use in a directory; what the lock knows is not read.

    Raises :class:`Incomplete` if one is missing or wrong, ``WeightsError`` if it cannot be read.
    """
    for finding in verify_weights(directory, listing, thorough=False):
        if not finding.usable or finding.pin is None:
            raise Incomplete(f"{directory / finding.path}: {finding.verdict}.")
        file = finding.file
        yield {
            "type": "machine-learning-model",
            "name": finding.path,
            "version": file.revision,
            "bom-ref": f"weights/{finding.path}",
            "purl": f"pkg:huggingface/{file.repository}@{file.revision}#{file.name}",
            "hashes": [{"alg": "SHA-256", "content": finding.pin.sha256}],
            "licenses": [{"license": {"name": file.licence}}],
        }


def write_bill(path: Path, bill: dict[str, Any]) -> None:
    """Write a bill in one step; raise :class:`Incomplete` if it breaks the schema."""
    text = json.dumps(bill, indent=2, sort_keys=True, ensure_ascii=False)
    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise Incomplete(f"The bill is not CycloneDX 1.6: {fault}")
    with tempfile.TemporaryDirectory(prefix=".bill-", dir=path.parent) as place:
        part = Path(place) / path.name
        part.write_text(f"{text}\n", encoding="utf-8")
        part.replace(path)


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise Incomplete(f"{' '.join(command[:4])} ended with {done.returncode}: {reason}")
    return done.stdout


if __name__ == "__main__":
    main()
