"""What a doctor says: findings, as a screen for people and a document for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from adapters.health import HealthStatus

#: Lines of a small terminal.
SCREEN_LINES = 24
#: With fewer there is no room for words beside the names of things.
LEAST_COLUMNS = 40
#: What begins a line, so that a failure is seen without colours as well.
FAILED, FINE, REMEDY = "FAIL", "ok", "->"
#: Marks what was cut off; --json has all of it.
CUT = " …"


@dataclass(frozen=True, slots=True)
class Finding:
    """Say how one thing stands, and what to do about it if it is not fine."""

    subject: str
    fine: bool
    text: str
    remedy: str | None = None

    def __str__(self) -> str:
        """Return all of it on one line."""
        return f"{self.text}: {self.remedy}" if self.remedy else self.text


@dataclass(frozen=True, slots=True)
class Line:
    """Hold a line of the screen; ``fine`` is None where it is neither good nor bad."""

    text: str
    fine: bool | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Say what a worker is and how it stands."""

    #: As in results; null is what could not be found out.
    identity: Mapping[str, Any]
    findings: Sequence[Finding]

    @property
    def fine(self) -> bool:
        """Tell whether the worker could take a job."""
        return all(finding.fine for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        status = HealthStatus.OK if self.fine else HealthStatus.UNHEALTHY
        return {
            "status": status.value,
            "identity": dict(self.identity),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def screen(self, columns: int) -> Sequence[Line]:
        """Return what fits on one screen, what is wrong before the rest."""
        columns = max(columns, LEAST_COLUMNS)
        wrong = [finding for finding in self.findings if not finding.fine]
        fine = [finding for finding in self.findings if finding.fine]
        lines = [Line(textwrap.shorten(_headline(wrong), columns, placeholder=CUT), not wrong)]
        if wrong:
            # What is fine has a line each; what is wrong shares the rest.
            share = (SCREEN_LINES - len(lines) - len(fine)) // len(wrong)
            for finding in wrong:
                lines += _told(finding, columns, share)
        return [*lines, *(_row(FINE, each.subject, each.text, columns, 1)[0] for each in fine)]


def _headline(wrong: Sequence[Finding]) -> str:
    if not wrong:
        return "This worker could take a job."
    subjects = ", ".join(finding.subject for finding in wrong)
    return f"This worker could NOT take a job: {subjects}."


def _told(finding: Finding, columns: int, most: int) -> Iterator[Line]:
    """Yield what is wrong and what to do, on ``most`` lines together."""
    each = most // 2
    if not each or finding.remedy is None:
        yield from _row(FAILED, finding.subject, f"{finding}", columns, max(1, most))
        return
    yield from _row(FAILED, finding.subject, finding.text, columns, each)
    yield from _row("", REMEDY, finding.remedy, columns, each)


def _row(mark: str, subject: str, text: str, columns: int, most: int) -> Sequence[Line]:
    """Return at most so many lines, the text in a column of its own."""
    head = f"{mark:<5}{subject:<13}"
    cut = textwrap.wrap(
        text,
        columns,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        max_lines=most,
        placeholder=CUT,
    )
    return [Line(line, {FAILED: False, FINE: True}.get(mark)) for line in cut or [head]]
