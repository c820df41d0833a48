"""The page of promises: whoever reads it can look each of them up."""

from __future__ import annotations

import re

from tests.drive_http import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
CASES = range(1, 52)


def told(case: int) -> str:
    """Return the file in which the page says that a case is told."""
    [row] = re.findall(rf"^\| {case} \|.*$", PAGE, re.MULTILINE)
    [name] = re.findall(r"`(faults/test_\w+\.py)`", row)
    return (ROOT / "tests" / name).read_text(encoding="utf-8")


def test_each_case_has_a_test_of_its_number_where_the_page_says() -> None:
    numbered = r'id=f?"{0:02} |def test_{0:02}_'

    assert [case for case in CASES if not re.search(numbered.format(case), told(case))] == []


def test_whatever_the_page_names_is_there() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", PAGE))

    assert [name for name in sorted(named) if not (ROOT / "tests" / name).exists()] == []
