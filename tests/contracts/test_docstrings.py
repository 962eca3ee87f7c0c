"""Every number says what it is, in which unit, when it refuses, and where it comes from."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import overproof.measure

MODULES = [f"overproof.measure.{found.name}" for found in pkgutil.iter_modules(overproof.measure.__path__)]
HEADINGS = ("Returns:", "Raises:", "Source:", ">>> ")


def public(module, wanted):
    """Names that the module itself defines, without an underscore."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and wanted(value) and value.__module__ == module.__name__
    }


FUNCTIONS = [
    pytest.param(function, id=f"{name.rpartition('.')[2]}.{title}")
    for name in MODULES
    for title, function in public(importlib.import_module(name), inspect.isfunction).items()
]
CLASSES = [
    pytest.param(value, id=f"{name.rpartition('.')[2]}.{title}")
    for name in MODULES
    for title, value in public(importlib.import_module(name), inspect.isclass).items()
]


def missing_parts(function):
    """What a public function's docstring lacks."""
    text = inspect.getdoc(function) or ""
    lacks = [heading for heading in HEADINGS if heading not in text]
    parameters = list(inspect.signature(function).parameters)
    if parameters and "Args:" not in text:
        lacks.append("Args:")
    lacks += [f"{name}: in Args" for name in parameters if f"\n    {name}: " not in text]
    if not text.strip() or not text.strip().splitlines()[0].endswith("."):
        lacks.append("a first line that is a sentence")
    return lacks


def test_there_is_something_to_check():
    """An empty list would make the other tests pass for nothing."""
    assert len(FUNCTIONS) >= 30


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_public_function_of_the_numbers_room_documents_itself(function):
    """Args with every parameter, Returns, Raises, Source and a run example."""
    assert missing_parts(function) == []


def test_a_bare_function_is_caught():
    """The check itself sees a missing part."""

    def bare(x: int) -> int:
        """Add one."""
        return x + 1

    assert set(missing_parts(bare)) == {*HEADINGS, "Args:", "x: in Args"}


@pytest.mark.parametrize("cls", CLASSES)
def test_each_public_record_of_the_numbers_room_is_frozen_and_explains_its_fields(cls):
    """Frozen, keyword-only, slotted, and a docstring line under each field."""
    if not dataclasses.is_dataclass(cls):
        pytest.skip("not a record")
    settings = cls.__dataclass_params__
    assert settings.frozen
    assert all(field.kw_only for field in dataclasses.fields(cls))
    assert "__slots__" in vars(cls)
    lines = [line.strip() for line in inspect.getsource(cls).splitlines()]
    for field in dataclasses.fields(cls):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{field.name}:"))
        assert lines[at + 1].startswith('"""'), f"{cls.__name__}.{field.name} has no docstring line"
