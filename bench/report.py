"""A table that is printed row by row: what is known is not lost if what comes next fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

FIRST_COLUMN, COLUMN = 46, 14
#: As much of an error as fits into a cell.
ERROR_CHARACTERS = 300


class Report:
    """Print a table in Markdown, its first column wide and the others to the right."""

    def __init__(self, *headings: str) -> None:
        """Print the headings."""
        self._columns = len(headings)
        self.row(*headings)
        marks = ["-" * COLUMN + ":"] * (len(headings) - 1)
        print(f"|{'-' * (FIRST_COLUMN + 2)}|{'|'.join(marks)}|")

    def row(self, what: str, *cells: str) -> None:
        """Print a row; cells that are not given stay empty."""
        padded = [*cells, *[""] * (self._columns - 1 - len(cells))]
        rest = " | ".join(f"{cell:>{COLUMN - 1}}" for cell in padded)
        print(f"| {what:<{FIRST_COLUMN}} | {rest} |", flush=True)

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Print what went wrong within, and go on: other parts may do better."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest is worth measuring
            words = " ".join(f"{type(error).__name__}: {error}".split())
            self.row(what, f"failed: {words[:ERROR_CHARACTERS]}".replace("|", "/"))
