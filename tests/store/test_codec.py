"""Values come back from the store as they went in, and what can't be stored is refused by name."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.data import Completion, Folder, PromptRow, Request, Traffic, TrafficRecord
from overproof.errors import CorruptArtifact, StoreError
from overproof.store import codec, window
from overproof.store.codec import changed_type, decode, encode
from overproof.task import Bar, Classes, Slice


@dataclass(frozen=True, kw_only=True, slots=True)
class Nest:
    """A recipe-like class with everything that the codec takes."""

    name: str
    inner: "Nest | None" = None
    parts: tuple = ()
    table: dict = field(default_factory=dict)
    raw: bytes = b""


def nowhere(digest):
    raise AssertionError(f"asked for folder {digest}")


def round_trip(value):
    return decode(encode(value).data, find=nowhere)


def same(left, right):
    """Equal, of the same type, and with mappings in the same order."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, tuple | list):
        return len(left) == len(right) and all(map(same, left, right))
    if hasattr(left, "__dataclass_fields__"):
        return all(same(getattr(left, f), getattr(right, f)) for f in left.__dataclass_fields__)
    return left == right and repr(left) == repr(right)


texts = st.text(st.characters(codec=None), max_size=12)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts, st.binary(max_size=9)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(texts, st.sampled_from(["$0", "$list", "$folder"]), st.integers()), inner, max_size=4),
        st.builds(Nest, name=texts, parts=st.lists(inner, max_size=3).map(tuple), raw=st.binary(max_size=4)),
        st.builds(Nest, name=texts, inner=st.builds(Nest, name=texts), table=st.dictionaries(texts, inner, max_size=3)),
    ),
    max_leaves=20,
)


@given(values)
@settings(max_examples=500, deadline=None)
def test_any_value_comes_back_the_same(value):
    """Types, order and every bit of a number survive a round trip, and the bytes of the copy are the same bytes."""
    back = round_trip(value)
    assert same(value, back)
    assert encode(back).data == encode(value).data


@given(values, values)
@settings(max_examples=300, deadline=None)
def test_different_values_have_different_digests(left, right):
    """Two values share a digest only if they are the same value."""
    assert (encode(left).digest == encode(right).digest) == same(left, right)


@given(values)
@settings(max_examples=150, deadline=None)
def test_what_is_longer_than_the_window_comes_back_the_same(value):
    """With a window that no number is longer than, and tuples cut in twos, the bytes are the same and so is the value."""
    whole = encode(value).data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "_AHEAD", 64)
        patch.setattr(window, "_BLOCK", 3)
        patch.setattr(codec, "_MANY", 2)
        assert encode(value).data == whole
        assert same(round_trip(value), value)


@given(values, st.data())
@settings(max_examples=150, deadline=None)
def test_a_text_that_was_cut_is_refused_through_a_small_window_too(value, data):
    """No beginning of an artifact is an artifact, and nothing may stand behind one."""
    whole = encode(value).data
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "_AHEAD", 64)
        patch.setattr(window, "_BLOCK", 3)
        for bad in (whole[:cut], whole + b"}"):
            with pytest.raises(CorruptArtifact):
                decode(bad, find=nowhere)


def test_equal_short_texts_are_one_object():
    """A million rows with the same label hold it once."""
    rows = tuple({"label": str.join("", ("re", "fund")), "at": str(i)} for i in range(3))
    back = round_trip(rows)
    assert back == rows
    assert back[0]["label"] is back[2]["label"]


def test_a_failure_in_a_long_tuple_is_named_with_its_place(monkeypatch):
    """The place counts from the tuple's beginning, not from that of the piece."""
    monkeypatch.setattr(codec, "_MANY", 2)
    with pytest.raises(StoreError, match=r"Nest\.parts\[4\]\[0\]"):
        encode(Nest(name="a", parts=(1, 2, 3, 4, (float("nan"),))))


def test_rows_of_the_house_come_back():
    """Nested rows of the data floor come back with the order of their fields, on which their text depends."""
    request = Request(id="1", fields={"subject": "b", "body": "a"}, attributes={"tier": "gold"})
    answer = Completion(text="x", value=None, model="m", cost_usd=1e-7)
    traffic = Traffic(
        records=(TrafficRecord(request=request, completion=answer),), window=(None, "2026-01-01"), left_out={"z": 1, "a": 2}
    )
    back = round_trip(traffic)
    assert same(traffic, back)
    assert back.records[0].request.text == "b\n\na"
    assert same(round_trip(Slice(name="s", where=(("tier", ("a", "b")),), bars=(Bar(metric="accuracy", at_least=0.9),))),
                Slice(name="s", where=(("tier", ("a", "b")),), bars=(Bar(metric="accuracy", at_least=0.9),)))
    assert round_trip(Classes(labels=("a", "b"))) == Classes(labels=("a", "b"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), Path("x"), {1, 2}, object(), 1j])
def test_what_cannot_be_stored_is_named_with_its_place(bad):
    """NaN, infinity and foreign objects are refused with the place at which they stand."""
    row = Nest(name="a", parts=(1, {"deep": (0, bad)}))
    with pytest.raises(StoreError, match=r"Nest\.parts\[1\]\[1\]|Nest\.parts\[1\]\[0\]\[1\]"):
        encode(row)


def test_a_class_inside_a_function_is_refused():
    """A class that no other process could find again is refused when it's written, not when it's read."""

    @dataclass(frozen=True)
    class Local:
        x: int = 1

    with pytest.raises(StoreError, match="local to a function"):
        encode(Local())


def test_a_folder_comes_back_at_its_place_in_the_store(tmp_path):
    """A folder is stored as its digest; where it lies is decided when it is read."""
    kept = encode((Folder(path=Path("was/here")),), keep=lambda folder: "ab" * 32)
    assert kept.folders == ("ab" * 32,)
    assert b"was/here" not in kept.data
    (back,) = decode(kept.data, find=lambda digest: tmp_path / digest)
    assert back == Folder(path=Path("anything"), digest="ab" * 32)
    assert back.path == tmp_path / ("ab" * 32)


def test_a_folder_that_nobody_stored_is_refused():
    """A folder without a digest can't be part of a value when no store takes its files."""
    with pytest.raises(StoreError, match="not in the store"):
        encode(Folder(path=Path("x")))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"format":1}', b"\xff\xfe"])
def test_bytes_that_are_no_artifact_are_refused(data):
    """Bytes of another form raise CorruptArtifact, never a stray exception."""
    with pytest.raises(CorruptArtifact):
        decode(data, find=nowhere)


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "planted:Trap", "overproof.data:digest_of"])
def test_bytes_cannot_choose_what_is_imported_or_called(tmp_path, monkeypatch, name):
    """Only dataclasses of this package, or of modules that the program has loaded itself, are ever built."""
    (tmp_path / "planted.py").write_text("from dataclasses import dataclass\n@dataclass\nclass Trap:\n    x: int\n")
    monkeypatch.syspath_prepend(tmp_path)
    data = f'{{"format":1,"types":[["{name}",["x"]]],"value":{{"$0":[1]}}}}'.encode()
    with pytest.raises(StoreError, match="unknown class"):
        decode(data, find=nowhere)
    assert "planted" not in sys.modules


def test_a_class_that_lost_a_field_is_noticed():
    """A stored value whose class no longer fits is reported by the class's name; a new field with a default fits."""
    good = encode(PromptRow(request=Request(id="1", fields={}), weight=1.0, group="g")).types
    assert changed_type(good) is None
    assert changed_type([("overproof.data:Request", ("id", "fields"))]) is None
    assert changed_type([("overproof.data:Request", ("id", "fields", "gone"))]) == "overproof.data:Request"
    assert changed_type([("overproof.data:Request", ("id",))]) == "overproof.data:Request"
    assert changed_type([("overproof.data:Gone", ("id",))]) == "overproof.data:Gone"
