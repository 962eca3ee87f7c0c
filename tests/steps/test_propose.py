"""What `[task] output` may say of answers: the narrowest types that all of them fit."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.outputs import output_of
from overproof.steps.propose import propose


def of(values):
    return propose("fields", [json.dumps({"x": value}) for value in values], [])


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([1, 2.5, None], "number?"),
        (["2025-01-02", "2025-02-28"], "date"),
        (["2025-01-02", "soon"], "text"),
        (["1", "2"], "text"),
        ([None, None], "text?"),
        (["low", "High", "high"] * 40, ["high", "low"]),
        (["low", "high"] * 10, "text"),  # twenty values don't show that there is no third
        ([f"v{i % 30}" for i in range(600)], "text"),
    ],
)
def test_a_fields_type_is_the_narrowest_that_all_values_fit(values, form) -> None:
    """Null makes it optional; a choice takes enough rows to show that the set is closed."""
    found = of(values).output["fields"]["x"]
    assert sorted(map(str.casefold, found)) == form if isinstance(form, list) else found == form


@pytest.mark.parametrize("values", [[[1]], [{"a": 1}], [True], [1, "one"]])
def test_what_the_file_can_not_say_is_told_with_the_fields_name(values) -> None:
    """Lists, objects, true and false, and a field of two types give a reason and no proposal."""
    found = of(values)
    assert found.output == {}
    assert "'x'" in found.problem


VALUES = st.none() | st.integers(-99, 99) | st.sampled_from(["a", "b", "2025-01-01", "long text here"])


@given(st.lists(st.fixed_dictionaries({}, optional={"p": VALUES, "q": VALUES}), min_size=1, max_size=30))
def test_every_answer_that_the_proposal_was_made_of_is_an_answer_of_it(rows) -> None:
    """Whatever mix of values: no proposal, or one that parses each of them."""
    found = propose("fields", [json.dumps(row) for row in rows], [])
    if found.output:
        kind = output_of(found.output)
        assert all(kind.parse(json.dumps(row)) for row in rows)
    else:
        assert found.problem
