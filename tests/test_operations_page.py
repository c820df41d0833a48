"""The operator's page: what the worker can say is explained there, and nothing else is."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from adapters.health import HealthStatus
from adapters.http import refusals
from handler import errors
from handler.result import Worker
from handler.testing import fake_runtime
from tests.drive_http import ROOT, open_door

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
#: Whatever writes log lines, or answers.
SOURCES = (*ROOT.glob("handler/*.py"), *ROOT.glob("adapters/**/*.py"), ROOT / "modal_app.py")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
#: What a log is called where it is written to.
LOGS = {"log", "_log", "open_log"}
#: Stands for what differs from line to line.
GAP = "…"

Row = list[str]


def rows(title: str) -> list[Row]:
    """Return the rows of the first table under a heading, without its head."""
    [section] = re.findall(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table
    # A bar within a cell is escaped.
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table[0].splitlines()[2:]]
    return [[cell.strip() for cell in line] for line in lines]


def explained(title: str) -> dict[str, Row]:
    """Return the rest of each row by the name that it begins with; each has one."""
    table = {row[0].strip("`"): row[1:] for row in rows(title)}
    assert len(table) == len(rows(title))
    return table


def said() -> dict[str, set[str]]:
    """Return every message that is written to a log, and at which levels."""
    found = defaultdict(set)
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call, level in log_calls(tree):
            for message in messages(call.args[0], tree):
                found[message].add(level)
    return found


def log_calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=log, attr=level)) if level in LEVELS:
                if name_of(log) in LOGS:
                    yield node, level


def name_of(node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Call(func=ast.Name(id=name)):
            return name
    return None


def messages(told: ast.expr, tree: ast.AST) -> set[str]:
    """Return what an argument may be: a literal, or what callers pass on as one."""
    match told:
        case ast.Constant(value=str(text)):
            return {text.replace("%s", GAP)}
        case ast.JoinedStr(values=parts):
            fixed = (str(each.value) if isinstance(each, ast.Constant) else GAP for each in parts)
            return {"".join(fixed)}
        case ast.Name(id=name):
            return set(passed(name, tree))
    raise AssertionError(f"Nobody can tell what is logged by {ast.unparse(told)}.")


def passed(parameter: str, tree: ast.AST) -> Iterator[str]:
    """Yield the literals that a module passes to its function that has such a parameter."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    [function] = [each for each in functions if parameter in [a.arg for a in each.args.args]]
    place = [a.arg for a in function.args.args if a.arg != "self"].index(parameter)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) == function.name:
            yield from messages(node.args[place], tree)


def codes() -> set[str]:
    """Return every ``error_code`` that is written somewhere, in a class or in an answer."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case (
                    ast.AnnAssign(target=ast.Name(id="error_code"), value=ast.expr() as value)
                    | ast.Assign(targets=[ast.Name(id="error_code")], value=value)
                    | ast.keyword(arg="error_code", value=value)
                ):
                    inside = [part for part in ast.walk(value) if isinstance(part, ast.Constant)]
                    found |= {part.value for part in inside if isinstance(part.value, str)}
    return found


def kinds() -> list[type[errors.WorkerError]]:
    """Return every error that a job or a request can end with."""
    found = [errors.WorkerError]
    for kind in found:
        found += kind.__subclasses__()
    here = {errors.__name__, refusals.__name__}
    return [kind for kind in found if kind.__module__ in here]


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """Return the metrics that the real door has; when they began is no news."""
    with open_door(fake_runtime()) as door:
        page = door.driver.ask("GET", "/metrics").body
    names = re.findall(r"^# TYPE (\w+)", page, re.MULTILINE)
    return {name for name in names if not name.endswith("_created")}


def test_every_line_of_the_log_is_explained_with_its_level_and_no_other() -> None:
    told = {name: set(row[0].split(", ")) for name, row in explained("Log lines").items()}

    assert told == said()


def test_every_error_code_is_explained_and_no_other() -> None:
    assert {"face_not_found", "unknown_error", "worker_busy", "result_unsendable"} <= codes()
    assert explained("Failures").keys() == codes()


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_whose_fault_where_and_whether_to_retry_is_told_as_it_is(
    kind: type[errors.WorkerError],
) -> None:
    whose, where, retry, _ = explained("Failures")[kind.error_code]

    own_word = "retryable" in kind.__init__.__annotations__
    assert whose == f"`{kind.error_type.value}`"
    assert where == (f"`{kind.stage.value}`" if kind.stage else "any")
    assert retry == ("as it says" if own_word else "yes" if kind.retryable else "no")


def test_every_metric_is_explained_and_no_other(metrics: set[str]) -> None:
    assert "musetalk_jobs_total" in metrics
    assert explained("Metrics").keys() == metrics


def test_alerts_ask_for_metrics_and_errors_that_there_are(metrics: set[str]) -> None:
    asked = set(re.findall(r"musetalk_\w+", PAGE)) - {"musetalk_job_id"}
    patterns = re.findall(r'(?:end|error_code)=~?"([^"]+)"', PAGE)
    ends = {end for pattern in patterns for end in pattern.replace("\\|", "|").split("|")}

    assert {name.removesuffix("_bucket") for name in asked} == metrics
    assert len(ends) > 10
    assert [
        end for end in sorted(ends) if not any(re.fullmatch(end, code) for code in codes())
    ] == []


def test_every_state_of_health_is_explained() -> None:
    assert explained("Health").keys() == {status.value for status in HealthStatus}


def test_all_that_a_worker_says_of_itself_is_explained() -> None:
    named = {name for row in rows("What a worker runs") for name in re.findall(r"`(\w+)`", row[0])}

    assert sorted(Worker.model_fields.keys() - named) == []
