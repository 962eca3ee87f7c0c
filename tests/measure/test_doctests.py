"""Every example in the numbers room is run."""

import doctest
import importlib
import pkgutil

import pytest

import overproof.measure

MODULES = [f"overproof.measure.{found.name}" for found in pkgutil.iter_modules(overproof.measure.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_each_module_give_what_they_say(name):
    """A docstring's example is a promise: it runs and prints what is written."""
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.REPORT_NDIFF)
    assert outcome.attempted > 0, f"{name} has no example"
    assert outcome.failed == 0
