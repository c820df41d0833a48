"""The pages on deploying: every command, flag, setting, job and link on them is a real one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from modal.cli.entry_point import entrypoint_cli as modal_cli

from adapters.cli import app
from handler import Job
from tests.build.test_deploy_files import OTHERS, SETTINGS
from tests.build_scripts import ROOT, run_script
from tests.dockerfile import environment, read_stages
from tests.pages import Page

DOCS = ROOT / "docs"
NAMES = ("runpod", "modal", "local", "salad-vast")
PAGES = {name: Page(DOCS / f"deploy-{name}.md") for name in NAMES} | {
    "migration": Page(DOCS / "migration.md"),
    "cost": Page(DOCS / "cost.md"),
}
#: All that has links.
LINKED = [Page(ROOT / "README.md"), *map(Page, sorted(DOCS.rglob("*.md")))]
CLIS: dict[str, click.Command] = {
    "musetalk-worker": typer.main.get_command(app),
    "modal": modal_cli,
}
TARGETS = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
IMAGE = re.compile(r"(registry\.example/you/)?musetalk-worker([:@].*)?")
#: Where images keep the scripts of build/.
SCRIPTS = "/usr/local/lib/musetalk/"
DIGEST = f"sha256:{'0' * 64}"

pages = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


def leaf(command: click.Command, words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that words lead to, and what is left of them."""
    while isinstance(command, click.Group) and words:
        context = command.make_context(command.name, list(words))
        found = command.get_command(context, words[0])
        assert found, f"there is no {words[0]} in {command.name}"
        command, words = found, words[1:]
    return command, words


def check_cli(program: str, words: list[str], *, whole: bool) -> None:
    """See that a program takes words; all that it needs is among them if they are ``whole``."""
    command, left = leaf(CLIS[program], words)
    if whole:
        command.make_context(program, list(left))
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    assert {word for word in left if word.startswith("-")} <= options


@cache
def flags_of(script: str) -> set[str]:
    return set(re.findall(r"--[a-z-]+", run_script(script, "--help").stdout))


def check(words: list[str], *, whole: bool) -> None:
    """See that a command is a real one, if it is one of ours or Modal's."""
    match words:
        case [("musetalk-worker" | "modal") as program, *rest] if rest or whole:
            check_cli(program, rest, whole=whole)
        case ["python" | "python3", script, *rest] if script.startswith("build/"):
            given = {word for word in rest if word.startswith("--")}
            assert given <= flags_of(Path(script).stem)
        case ["make", target, *variables]:
            assert target in TARGETS
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert all(f"$({each.partition('=')[0]}" in makefile for each in variables)


def docker_runs() -> Iterator[tuple[list[str], list[str]]]:
    """Yield the options of each docker run, and what the container is given."""
    for page in PAGES.values():
        for words in page.commands():
            if words[:2] == ["docker", "run"]:
                rest = words[2:]
                at = next(
                    number
                    for number, word in enumerate(rest)
                    if IMAGE.fullmatch(word) and rest[number - 1] != "--name"
                )
                yield rest[:at], rest[at + 1 :]


@pages
def test_every_command_of_ours_and_modals_on_a_page_is_a_real_one(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)

    for words in page.commands():
        check(words, whole=True)
    for words in page.mentions():
        check(words, whole=False)


def test_the_check_of_commands_would_notice() -> None:
    for words in (
        ["modal", "app", "begin", "musetalk-worker"],
        ["modal", "app", "stop", "musetalk-worker", "--now"],
        ["musetalk-worker", "weights", "fetch", "--all"],
        ["python", "build/deploy_runpod.py", "--image", "x", "--gpus", "y"],
        ["make", "deploy"],
    ):
        with pytest.raises((AssertionError, click.UsageError)):
            check(words, whole=True)


def test_the_deployments_to_runpod_are_what_the_script_would_do(tmp_path: Path) -> None:
    settings = tmp_path / "runpod.env"
    (block,) = PAGES["runpod"].settings()
    settings.write_text(block.replace("sha256:DIGEST", DIGEST))

    tried = [
        run_script("deploy_runpod", *(fill(word, settings) for word in words[2:]), "--dry-run")
        for words in PAGES["runpod"].commands()
        if words[1:2] == ["build/deploy_runpod.py"]
    ]

    assert len(tried) == 2
    assert [done.returncode for done in tried] == [0, 0], tried[-1].stderr
    assert all('"minCudaVersion": "13.0"' in done.stdout for done in tried)


def fill(word: str, settings: Path) -> str:
    return str(settings) if word == settings.name else word.replace("sha256:DIGEST", DIGEST)


def test_what_docker_is_told_to_run_is_a_door_of_the_image_with_settings_that_there_are() -> None:
    doors = set(CLIS["musetalk-worker"].commands)  # type: ignore[attr-defined]

    runs = list(docker_runs())

    assert len(runs) > 4
    for options, words in runs:
        given = {
            options[number + 1].partition("=")[0]
            for number, option in enumerate(options)
            if option in {"-e", "--env"}
        }
        assert given <= SETTINGS | OTHERS
        assert "--entrypoint" in options or set(words[:1]) <= doors


@pages
def test_the_scripts_that_a_page_runs_in_the_image_are_in_it(page: Page) -> None:
    image = (ROOT / "Dockerfile.serverless").read_text(encoding="utf-8")

    named = set(re.findall(rf"{SCRIPTS}(\w+\.py)", page.path.read_text(encoding="utf-8")))

    assert all((ROOT / "build" / name).is_file() and f"build/{name}" in image for name in named)


@pages
def test_settings_that_a_page_shows_are_settings(page: Page) -> None:
    for block in page.settings():
        assert {line.partition("=")[0] for line in block.splitlines()} <= SETTINGS


def jobs_of(page: Page) -> Iterator[dict[str, Any]]:
    for block in page.blocks("json"):
        shown = json.loads(block)
        shown = shown.get("input", shown)
        if "video_url" in shown:
            yield shown


@pytest.mark.parametrize("name", NAMES)
def test_the_first_job_of_a_page_is_one(name: str) -> None:
    (job,) = jobs_of(PAGES[name])

    assert Job.parse(job).musetalk_job_id == "first-job"


def test_salads_group_names_settings_and_probes_that_there_are() -> None:
    (group,) = (
        json.loads(block) for block in PAGES["salad-vast"].blocks("json") if "probe" in block
    )
    image = read_stages(ROOT / "Dockerfile.serverless")

    given = group["container"]["environment_variables"]

    assert given.keys() <= SETTINGS
    assert all(given.values())
    for probe in (group["startup_probe"], group["liveness_probe"]):
        assert probe["exec"]["command"] == image[-1].only("HEALTHCHECK").argv
    # As long as the image itself gives a start, at least.
    start = group["startup_probe"]
    patience = start["initial_delay_seconds"] + start["period_seconds"] * start["failure_threshold"]
    assert patience >= 300
    assert environment(image)["PORT"] == "8000"


@pages
def test_a_page_calls_the_readers_registry_always_the_same(page: Page) -> None:
    named = re.findall(
        r"registry\.example\S*?(?=[\s`\"']|$)", page.path.read_text(encoding="utf-8")
    )

    allowed = r"registry\.example(/you/musetalk-worker(:TAG|@sha256:DIGEST)?)?"
    assert [name for name in named if not re.fullmatch(allowed, name)] == []


def test_the_example_of_costs_is_what_its_program_prints() -> None:
    (program,), (printed,) = PAGES["cost"].blocks("python"), PAGES["cost"].blocks("text")

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == printed


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.path.name)
def test_every_link_leads_somewhere(page: Page) -> None:
    for path, anchor in page.links():
        target = page.path if not path else (page.path.parent / path).resolve()
        assert target.exists(), path
        if anchor and target.suffix == ".md":
            assert anchor in Page(target).anchors(), f"{path}#{anchor}"
