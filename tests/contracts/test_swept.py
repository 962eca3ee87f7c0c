"""No verb that writes is forgotten by the kill sweep: each is swept, or said to write nothing."""

import click
from benchmarks.reliability import cases

from overproof.cli import VERBS, main
from overproof.web.table import VIEWS


def named() -> set[str]:
    """Every verb; where it has actions, each of them."""
    found = set()
    for verb in VERBS:
        command = main.get_command(click.Context(main), verb)
        actions = [one for p in command.params if isinstance(p, click.Argument) and isinstance(p.type, click.Choice) for one in p.type.choices]
        found |= {f"{verb} {one}" for one in actions} or {verb}
    return found


def test_each_verb_is_swept_or_named_as_one_that_writes_nothing() -> None:
    """A new verb, or a new action of one, has to be put into one of the two lists."""
    assert named() == cases.VERBS_SWEPT | set(cases.READS)
    assert not cases.VERBS_SWEPT & set(cases.READS)


def test_each_change_that_a_page_makes_is_swept() -> None:
    """A view that takes a POST is asked in a recorded `overproof web`."""
    assert {one.path.removeprefix("/{task}/") for one in VIEWS if one.method == "POST"} == cases.POSTS_SWEPT
