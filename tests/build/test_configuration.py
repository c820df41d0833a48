"""The page of settings: it says what the code says, of every variable, to everybody the same."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from adapters.config import GPU_CLASS_VARIABLES, IDENTITY_VARIABLES, Config
from tests.build_scripts import ROOT, run_script, script_of

PAGE = ROOT / "docs" / "configuration.md"
CONTRACT = ROOT / "docs" / "contract.md"
SCRIPT = ROOT / "build" / "configuration.py"
#: Whatever reads the environment, where the worker runs or where it is deployed.
READERS = (
    *ROOT.glob("adapters/**/*.py"),
    *ROOT.glob("inference/**/*.py"),
    *(path for path in ROOT.glob("build/*.py") if path != SCRIPT),
    ROOT / "modal_app.py",
)
#: What the environment is called where it is read.
ENVIRONMENTS = {"env", "environ"}
#: Functions that read a variable by the name that they are given.
ASKING = {"get", "_count"}


def settings() -> set[str]:
    """Return every variable that the worker reads as a setting."""
    aliases = {field.alias for field in Config.model_fields.values() if field.alias}
    return {*aliases, *IDENTITY_VARIABLES, *GPU_CLASS_VARIABLES}


def quoted(text: str) -> set[str]:
    """Return the variables that a text names."""
    return set(re.findall(r"`([A-Z][A-Z0-9_]{3,})`", text))


def read_in(path: Path) -> Iterator[str]:
    """Yield the variables that a file's code reads from the environment by their names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(value=asked, attr=verb), args=[name, *_]):
                known = verb in ASKING and is_environment(asked)
            case ast.Call(func=ast.Name(id=verb), args=[name, *_]):
                known = verb in ASKING
            case ast.Subscript(value=asked, slice=name, ctx=ast.Load()):
                known = is_environment(asked)
            case _:
                continue
        if known and isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield name.value


def is_environment(node: ast.expr) -> bool:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in ENVIRONMENTS
    return False


def test_the_page_is_up_to_date() -> None:
    done = run_script("configuration", "--check")

    assert done.returncode == 0, done.stderr


def test_an_old_page_is_noticed_and_how_to_renew_it_is_said(tmp_path: Path) -> None:
    for place in ("build", "docs"):
        (tmp_path / place).mkdir()
    copy = tmp_path / "build" / SCRIPT.name
    copy.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    old = PAGE.read_text(encoding="utf-8").replace("`MAX_FPS`", "`MAX_RATE`")
    (tmp_path / "docs" / PAGE.name).write_text(old, encoding="utf-8")

    done = run_script(os.path.relpath(copy.with_suffix(""), SCRIPT.parent), "--check")

    assert done.returncode == 1
    assert "python build/configuration.py > docs/configuration.md" in done.stderr


def test_the_page_is_the_same_on_every_machine_and_tells_no_secret(tmp_path: Path) -> None:
    env = dict.fromkeys(settings(), "pl4nted")

    done = run_script("configuration", prefix=("env", f"TMPDIR={tmp_path}"), **env)

    assert done.stdout == PAGE.read_text(encoding="utf-8")
    assert "pl4nted" not in done.stdout


def test_every_setting_has_its_place_on_the_page() -> None:
    assert settings() - quoted(PAGE.read_text(encoding="utf-8")) == set()


def test_every_variable_that_some_code_reads_has_its_place_on_the_page() -> None:
    read = {name for path in READERS for name in read_in(path) if name.isupper()}

    assert {"PATH", "MODAL_TASK_ID", "MUSETALK_GPUS", "RUNPOD_API_KEY"} <= read
    told = {*quoted(PAGE.read_text(encoding="utf-8"))}
    assert sorted(read - told) == []


def test_what_the_page_says_of_others_is_still_so() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in READERS)
    text += (ROOT / "Dockerfile.serverless").read_text(encoding="utf-8")
    script = script_of("configuration")

    names = [each.name for each in (*script.BESIDE, *script.DEPLOYMENT)]

    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def test_every_group_begins_with_a_setting_that_there_is() -> None:
    firsts = [group.first for group in script_of("configuration").GROUPS]

    in_order = [name for name in Config.model_fields if name in firsts]

    assert in_order == firsts
    assert next(iter(Config.model_fields)) == firsts[0]


def test_a_secret_is_marked() -> None:
    text = PAGE.read_text(encoding="utf-8")

    marked = set(re.findall(r"^\| `(\w+)` \|[^|]*\*secret\*", text, re.MULTILINE))

    assert marked & settings() == {
        "B2_APP_KEY",
        "WEBHOOK_SECRET",
        "WORKER_TOKEN",
        "INTERNAL_API_KEY",
    }


@pytest.mark.parametrize(
    ("field", "fault"),
    [
        (FieldInfo(annotation=str, alias="COLOUR", default="red"), "colour has no description"),
        (FieldInfo(annotation=str, description="Of the car."), "colour has no variable"),
    ],
)
def test_a_setting_of_which_nothing_is_told_is_not_let_through(
    field: FieldInfo, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        script_of("configuration").row("colour", field)


def test_the_contract_names_the_settings_that_there_are_and_no_others() -> None:
    contract = CONTRACT.read_text(encoding="utf-8")
    [section] = re.findall(r"^## 6\..*?(?=^## )", contract, re.MULTILINE | re.DOTALL)

    promised = quoted(section)

    assert sorted(promised - settings()) == []
    assert sorted(settings() - promised) == []
