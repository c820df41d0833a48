"""The bill of materials: all that is installed, and nothing that is not."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from adapters import __version__
from inference.weights import WEIGHTS, WeightsFile
from tests.build_scripts import ROOT, run_script, script_of
from tests.hub import REVISION, published

DIGEST = "0" * 64


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment of two distributions, without pip; return its interpreter."""
    place = tmp_path_factory.mktemp("bare")
    command = [sys.executable, "-m", "venv", "--without-pip", "--symlinks", f"{place}"]
    subprocess.run(command, check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    install(packages, "musetalk-worker", "9.8.7", "Requires-Dist: Odd.Name>=1", "License: MIT")
    install(packages, "Odd.Name", "1.2.3+cu128", "License-Expression: BSD-3-Clause")
    return place / "bin/python"


def install(packages: Path, name: str, version: str, *lines: str) -> None:
    """Leave what an installer leaves of a distribution."""
    info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    head = ("Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}")
    (info / "METADATA").write_text("\n".join([*head, *lines, ""]))
    (info / "RECORD").write_text(f"{name}.py,sha256={DIGEST},7\n")


def bill_of(place: Path, *words: str, listing: Sequence[WeightsFile] = WEIGHTS) -> dict[str, Any]:
    """Have a bill written and read it."""
    path = place / "bill.json"
    script_of("sbom").main([str(path), *words], listing)
    bill: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return bill


def named(bill: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the one component of a name."""
    (component,) = [part for part in bill["components"] if part["name"] == name]
    return dict(component)


def test_all_that_is_installed_here_is_listed_and_the_schema_holds(tmp_path: Path) -> None:
    path = tmp_path / "bill.json"
    done = run_script("sbom", str(path))
    assert done.returncode == 0, done.stderr
    bill = json.loads(path.read_text(encoding="utf-8"))

    listed = {(part["name"], part["version"]) for part in bill["components"]}
    installed = {(one.name, one.version) for one in distributions()}
    assert installed - listed == {("musetalk-worker", __version__)}
    assert {name for name, _ in listed - installed} == {"ffmpeg"}
    assert not JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill))
    torch = named(bill, "torch")
    assert torch["purl"].startswith("pkg:pypi/torch@2.13.0")
    assert "BSD-3-Clause" in json.dumps(torch["licenses"])
    assert named(bill, "ffmpeg")["version"][0].isdigit()
    # Where it was built is nobody's business.
    assert str(ROOT) not in json.dumps(bill)


def test_another_environment_is_listed_in_which_nothing_was_installed_for_it(
    bare: Path, tmp_path: Path
) -> None:
    bill = bill_of(tmp_path, "--python", str(bare))

    worker, library = bill["metadata"]["component"], named(bill, "Odd.Name")
    assert {part["name"] for part in bill["components"]} == {"Odd.Name", "ffmpeg"}
    assert (worker["type"], worker["version"]) == ("application", "9.8.7")
    assert library["purl"] == "pkg:pypi/odd.name@1.2.3%2Bcu128"
    assert library["licenses"] == [
        {"license": {"acknowledgement": "declared", "id": "BSD-3-Clause"}}
    ]
    # What was installed under its name can be compared.
    (record,) = bare.parents[1].glob("lib/python*/site-packages/Odd.Name-*/RECORD")
    (told,) = library["properties"]
    assert told["value"] == hashlib.sha256(record.read_bytes()).hexdigest()
    # What the worker needs is told as well.
    needs = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    assert needs[worker["bom-ref"]] == [library["bom-ref"]]


def test_weights_that_are_shipped_are_listed_with_their_commits_and_terms(
    tmp_path: Path, bare: Path
) -> None:
    published_file, slim = published("unet.bin", b"wide", converted="unet.slim"), b"slim"
    (tmp_path / "unet.slim").write_bytes(slim)

    words = ("--python", str(bare), "--weights", str(tmp_path))
    bill = bill_of(tmp_path, *words, listing=[published_file])

    unet = named(bill, "unet.slim")
    assert unet["purl"] == f"pkg:huggingface/someone/tiny@{REVISION}#unet.bin"
    assert unet["hashes"][0]["content"] == hashlib.sha256(slim).hexdigest()
    assert unet["licenses"] == [{"license": {"name": "MIT"}}]


def test_a_bill_that_would_not_tell_all_is_not_written(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = str(tmp_path / "nothing")

    with pytest.raises(SystemExit, match=r"musetalkV15/unet\.pth: missing"):
        bill_of(tmp_path, "--python", str(bare), "--weights", nothing)
    with pytest.raises(SystemExit, match=nothing):
        bill_of(tmp_path, "--python", nothing)
    with pytest.raises(SystemExit, match=nothing):
        bill_of(tmp_path / "nothing", "--python", str(bare))
    monkeypatch.setenv("PATH", nothing)
    with pytest.raises(SystemExit, match="ffmpeg"):
        bill_of(tmp_path, "--python", str(bare))

    assert list(tmp_path.iterdir()) == []


def test_an_environment_without_the_worker_is_the_wrong_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "venv", "--without-pip", f"{tmp_path / 'empty'}"]
    subprocess.run(command, check=True)

    with pytest.raises(SystemExit, match="musetalk-worker is not installed"):
        bill_of(tmp_path, "--python", f"{tmp_path / 'empty/bin/python'}")


def test_a_bill_that_breaks_the_schema_is_not_written(tmp_path: Path) -> None:
    script = script_of("sbom")
    nameless = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"type": "file"}]}

    with pytest.raises(script.Incomplete, match=r"not CycloneDX 1\.6"):
        script.write_bill(tmp_path / "bill.json", nameless)

    assert list(tmp_path.iterdir()) == []
