"""The evaluation of a task whose answers are records: per field instead of per label."""

import re

import pytest
from tests.flows.conftest import Maker
from tests.flows.test_written import BARS, FIELDS, documents, installed, written  # noqa: F401 - a student that is installed for the module
from tests.web.conftest import apart

from overproof.pipeline import distil
from overproof.project import load_project
from overproof.serve.keys import Caller
from overproof.web.place import Place
from overproof.web.render import rendered
from overproof.web.view import Ask, Query
from overproof.web.views import evaluation, run


@pytest.fixture(scope="module")
def orders(installed, tmp_path_factory):  # noqa: F811 - the student has to be there
    """A project of records after its run."""
    root = written(Maker, tmp_path_factory.mktemp("orders") / "orders", FIELDS, documents(400), BARS)
    place = Place(load_project(root))
    apart(distil, place.store, place.project)
    yield place
    place.close()


def shown(place, answer, query=b""):
    """The page as a reader gets it, without the frame's menu."""
    who = Caller(id="", scopes=frozenset({"read"}))
    ask = Ask(places=(place,), params={"task": place.name}, query=Query(query), caller=who, now=0.0)
    reply = answer(ask)
    frame = {"tasks": [place.name], "menu": [], "caller": who, "keyed": False, "token": "", "title": reply.title, "live": {}, "ask": ask, "now": 0.0, "here": "", "task": place.name}
    return rendered(reply.template, {**frame, **reply.values}).decode()


def test_fields_stand_where_labels_would(orders):
    """Figures for each field, disagreements with both records, no confusion of labels, no filter by label."""
    text = shown(orders, evaluation.evaluation)
    assert "Within the answers" in text
    assert "<td>currency</td>" in text
    assert "Which labels it confuses" not in text
    assert 'name="teacher"' not in text
    rows = text.split('id="disagreements"')[1]
    assert re.search(r"[1-9]\d* of [1-9]\d* disagreements", rows)
    assert "&#34;order&#34;" in rows
    assert 'id="x-step"' in text


def test_a_run_of_records_is_shown_like_any_other(orders):
    """Funnel, candidates and what it cost."""
    text = shown(orders, run.run)
    for part in ("funnel", "match", "candidates", "ladder", "money"):
        assert f'<section id="{part}">' in text
