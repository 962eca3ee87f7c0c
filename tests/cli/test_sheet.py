"""A review sheet survives spreadsheets: marks, delimiters, encodings, formulas; and nothing half-imported."""

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overproof.cli.sheet import read_sheet, write_sheet
from overproof.errors import DataError
from overproof.steps.queues import Asked
from overproof.task import Classes

OUTPUT = Classes(labels=("bug", "billing", "how to", "-other"))


def asked(number, text="my card", **changes):
    return Asked(**{"digest": f"{number:064d}", "request_id": f"r{number}", "text": text, "queue": "audit", "split": "train", "place": number, **changes})


def cells(path):
    return list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def read(path, rows, *, reviewer="Ana", drawn=0):
    return read_sheet(path, asked={r.digest: r for r in rows}, output=OUTPUT, reviewer=reviewer, drawn=drawn)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_no_cell_is_a_formula_and_every_row_comes_back(tmp_path, texts) -> None:
    """Whatever a customer wrote, no cell starts with what a spreadsheet would run."""
    rows = [asked(i, text) for i, text in enumerate(texts)]
    path = tmp_path / "q.csv"
    write_sheet(path, rows, reviewer="=Ana")
    head, *found = cells(path)
    assert len(found) == len(rows)
    assert not [cell for line in found for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    filled = io.StringIO(newline="")
    csv.writer(filled).writerows([head, *([*line[:2], "Bug ", *line[3:]] for line in found)])
    path.write_text(filled.getvalue(), encoding="utf-8-sig", newline="")
    assert [(r.request_id, r.label, r.reviewer) for r in read(path, rows)] == [(r.request_id, "bug", "=Ana") for r in rows]


@pytest.mark.parametrize(("mark", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16"), (";", "cp1252")])
def test_what_excel_makes_of_it_is_read(tmp_path, mark, encoding) -> None:
    """Other delimiters and encodings, a decimal comma, and rows left empty."""
    rows = [asked(0), asked(1)]
    lines = [["Text", "LABEL", "seconds", "queue", "digest"], ["schön", "How To", "1,5", "AUDIT", rows[0].digest], ["x", "", "", "audit", rows[1].digest]]
    text = "\r\n".join(mark.join(f'"{cell}"' for cell in line) for line in lines)
    path = tmp_path / "q.csv"
    path.write_bytes(text.encode(encoding))
    (found,) = read(path, rows)
    assert (found.label, found.seconds, found.reviewer) == ("how to", 1.5, "Ana")


def test_a_label_that_looks_like_a_formula_comes_through_the_guard(tmp_path) -> None:
    """With the apostrophe that a careful person adds, or without."""
    for word in ("-other", "'-other"):
        path = tmp_path / "q.csv"
        path.write_text(f"label,queue,digest\n{word},audit,{asked(0).digest}\n")
        assert read(path, [asked(0)])[0].label == "-other"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("bugg,audit,{0}", "Did you mean 'bug'?"),
        ("bug,audit,feed", "no row of this project"),
        ("bug,other,{0}", "not audit or fix"),
        ("bug,audit,{9}", "was not drawn yet"),
        ("bug,fix,{5}", "not a training row"),
        ("bug,audit,{0}\nbilling,audit,{0}", "is there twice"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, why) -> None:
    """With its number, and nothing is returned."""
    rows = [asked(0), asked(9), asked(5, split="test")]
    digests = {i: f"{i:064d}" for i in range(10)}
    path = tmp_path / "q.csv"
    path.write_text("label,queue,digest\n" + line.format(*digests.values()) + "\n")
    with pytest.raises(DataError) as caught:
        read(path, rows)
    assert why in str(caught.value)
    assert "row 2" in str(caught.value) or "row 3" in str(caught.value)
    assert "nothing was imported" in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path) -> None:
    """No header, no file, nobody named."""
    path = tmp_path / "q.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="has no column"):
        read(path, [])
    with pytest.raises(DataError, match="can't be read"):
        read(tmp_path / "none.csv", [])
    path.write_text(f"label,queue,digest\nbug,audit,{asked(0).digest}\n")
    with pytest.raises(DataError, match="nobody is named"):
        read(path, [asked(0)], reviewer="")
