"""Every registered verifier goes through the conformance suite."""

import random

import pytest

from overproof import registry
from overproof.data import Judgement
from overproof.task import Classes
from overproof.testing import verifier_conformance

LABELS = ("billing", "bug", "other")
OUTPUT = Classes(labels=LABELS)
OPTIONS = {
    "label_set.v1": [{}, {"labels": ["bug"]}],
    "regex.v1": [{"pattern": "^b"}, {"pattern": "x", "on": "input", "must": "not match"}],
    "schema.v1": [{}, {"schema": {"minLength": 4}}],
    "agreement.v1": [{}, {"min": 1}],
    "command.v1": [{"command": ["true"]}, {"command": ["false"]}],
    "grounding.v1": [{}, {"fields": ["total"], "derived": False}],
}


@pytest.mark.parametrize("name", registry.names("verifiers"))
def test_every_registered_verifier_keeps_its_promises(name: str) -> None:
    """Pure, total, and with a reason for each rejection; a new verifier must say in OPTIONS how it is made."""
    for options in OPTIONS[name]:
        verifier_conformance(lambda options=options: registry.resolve("verifiers", name)(output=OUTPUT, **options), labels=LABELS)


def broken(judge) -> type:
    return type("Broken", (), {"judge": lambda self, request, completions, target: judge(completions)})


def emptied(completions: list) -> Judgement:
    completions.clear()
    return Judgement(keep=True)


@pytest.mark.parametrize(
    ("judge", "promise"),
    [
        (lambda completions: Judgement(keep=False), "has a reason"),
        (lambda completions: Judgement(keep=True, score=1.5), r"in \[0, 1\]"),
        (lambda completions: Judgement(keep=random.random() < 0.5, reason="luck"), "same judgement"),
        (lambda completions: Judgement(keep=completions[0].value is not None, reason="x"), "never raises"),
        (emptied, "leaves its arguments alone"),
        (lambda completions: True, "returns a Judgement"),
    ],
)
def test_the_suite_names_the_promise_that_a_verifier_breaks(judge, promise: str) -> None:
    """Each broken promise is found, by name."""
    with pytest.raises(AssertionError, match=promise):
        verifier_conformance(broken(judge), labels=LABELS)
