"""Agreement of a teacher's samples."""

import pytest

from overproof.data import Completion, Request
from overproof.errors import DataError
from overproof.task import Classes
from overproof.verifiers.agreement import Agreement

OUTPUT = Classes(labels=("billing", "bug"))
REQUEST = Request(id="r", fields={"text": "x"})


def said(*values: str | None) -> list[Completion]:
    return [Completion(text=v or "?", value=v, model="m", reason=None if v else "no label") for v in values]


@pytest.mark.parametrize(
    ("values", "least", "keep", "share"),
    [
        (("bug", "bug", "billing"), 0.6, True, 2 / 3),
        (("bug", "bug", "billing"), 0.7, False, 2 / 3),
        (("bug", "bug", "bug", "billing", "billing"), 0.6, True, 0.6),
        (("bug", "bug", None), 0.7, False, 2 / 3),
        (("bug",), 1, True, 1.0),
        (("billing",), 0.1, False, 0.0),
        ((), 0.5, False, None),
    ],
)
def test_the_share_of_all_samples_decides(values: tuple, least: float, keep: bool, share: float | None) -> None:
    """A sample that was no label counts against the target; the least share itself is enough."""
    judgement = Agreement(output=OUTPUT, min=least).judge(REQUEST, said(*values), "bug")
    assert (judgement.keep, judgement.score) == (keep, share)


@pytest.mark.parametrize("least", [0, -1, 1.1, True])
def test_a_share_outside_its_range_is_refused(least: float) -> None:
    """0 would keep everything and look like a check."""
    with pytest.raises(DataError):
        Agreement(output=OUTPUT, min=least)
