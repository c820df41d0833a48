"""What a doctor says fits on one screen, and what is wrong is not to be overlooked there."""

from __future__ import annotations

import itertools

from adapters.diagnosis import SCREEN_LINES, Diagnosis, Finding

LONG = "a word of a sentence that goes on and on " * 12


def finding(number: int, *, fine: bool, text: str = LONG) -> Finding:
    return Finding(f"subject-{number}", fine, text, None if fine else LONG)


def diagnosis(wrong: int, fine: int, text: str = LONG) -> Diagnosis:
    """Return so many findings, the fine ones first."""
    kinds = [True] * fine + [False] * wrong
    return Diagnosis({}, [finding(n, fine=kind, text=text) for n, kind in enumerate(kinds)])


def test_however_much_is_wrong_it_fits_on_one_screen() -> None:
    for wrong, columns in itertools.product(range(14), (40, 100)):
        lines = diagnosis(wrong, fine=13 - wrong).screen(columns)

        assert len(lines) <= SCREEN_LINES
        assert max(len(line.text) for line in lines) <= columns


def test_on_a_screen_that_is_too_narrow_there_are_words_all_the_same() -> None:
    assert len(diagnosis(wrong=1, fine=2).screen(columns=10)) > 3


def test_what_is_wrong_comes_first_and_each_says_what_to_do() -> None:
    lines = diagnosis(wrong=2, fine=11, text="short").screen(columns=100)

    marks = [line.text.split()[0] for line in lines[1:]]
    assert "NOT" in lines[0].text
    assert [mark for mark in marks if mark in {"FAIL", "->"}] == ["FAIL", "->"] * 2
    assert marks[-11:] == ["ok"] * 11
    assert "ok" not in marks[:-11]


def test_a_single_fault_is_told_at_length() -> None:
    lines = diagnosis(wrong=1, fine=12).screen(columns=100)

    told = " ".join(line.text for line in lines)
    assert told.count("sentence") > 2 * LONG.count("sentence") * 0.8


def test_no_sentence_is_cut_where_there_is_room() -> None:
    lines = diagnosis(wrong=1, fine=12).screen(columns=600)

    failure = next(line.text for line in lines if line.text.startswith("FAIL"))
    assert failure.endswith(LONG.strip())


def test_what_is_cut_off_says_so() -> None:
    lines = diagnosis(wrong=0, fine=3).screen(columns=60)

    assert [line.text[-1] for line in lines[1:]] == ["…"] * 3


def test_a_file_keeps_its_name_in_one_piece() -> None:
    text = "/weights lacks " + ", ".join(f"sd-vae/model-{n}.bin" for n in range(40))

    lines = Diagnosis({}, [Finding("weights", fine=False, text=text)]).screen(columns=60)

    names = [word for line in lines for word in line.text.split() if ".bin" in word]
    assert len(names) > 10
    assert all(name.startswith("sd-vae/model-") for name in names)


def test_all_of_it_is_on_one_line_for_those_who_have_one() -> None:
    assert str(Finding("gpu", fine=True, text="there")) == "there"
    assert str(Finding("gpu", fine=False, text="gone", remedy="look")) == "gone: look"
