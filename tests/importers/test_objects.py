"""Containers: the same rows from lines, arrays, documents and packed files; broken ones say where; memory stays small."""

import gzip
import json
import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.data import Skipped
from overproof.errors import DataError
from overproof.importers import ColumnMapping, files, guess
from overproof.importers.objects import objects
from overproof.importers.table import JsonLines

ROWS = [{"text": f'row {i} \u00e9 "q" ] }} ,', "n": i, "deep": {"a": [1, {"b": None}]}} for i in range(50)]


def written(tmp_path, name, data):
    path = tmp_path / name
    raw = data if isinstance(data, bytes) else data.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else zstandard.compress(raw) if name.endswith(".zst") else raw)
    return path


def values(path, under=("data", "runs")):
    return [row.value for row in objects(path, under=under)]


SHAPES = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "array": json.dumps(ROWS),
    "pretty array": json.dumps(ROWS, indent=2),
    "array of lines": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "document": json.dumps({"object": "list", "data": ROWS, "has_more": False}, indent=1),
    "one-line document": json.dumps({"data": ROWS}),
    "documents on lines": json.dumps({"runs": ROWS[:20]}) + "\n" + json.dumps({"runs": ROWS[20:]}),
    "with a mark": "\ufeff" + json.dumps(ROWS, ensure_ascii=False),
}


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_rows_come_out_of_every_container(tmp_path, shape, packed):
    """JSON lines, arrays and documents, plain, gzipped or zstd, hold the same rows with places of their own."""
    path = written(tmp_path, "a.json" + packed, SHAPES[shape])
    assert values(path) == ROWS
    assert len({row.number for row in objects(path, under=("data", "runs"))}) == len(ROWS)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(max_size=5), st.recursive(
    st.none() | st.booleans() | st.integers(-10**12, 10**12) | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=6), max_size=4), max_size=12),
    indent=st.sampled_from([None, 0, 3]), chunk=st.integers(1, 40))  # fmt: skip
def test_any_array_is_read_whatever_the_size_of_a_piece(tmp_path_factory, rows, indent, chunk):
    """Where the pieces of the file end never changes what is read: escapes, numbers and multi-byte characters included."""
    import overproof.importers.objects as room

    path = tmp_path_factory.mktemp("a") / "a.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8", errors="surrogatepass")
    size, room.CHUNK = room.CHUNK, chunk
    try:
        found = list(objects(path)) if path.stat().st_size > 2 else []
    finally:
        room.CHUNK = size
    assert [row.value if not isinstance(row, Skipped) else None for row in found] == rows


@pytest.mark.parametrize("chunk", range(1, 9))
def test_a_number_is_not_cut_where_a_piece_of_the_file_ends(tmp_path, monkeypatch, chunk):
    """A figure before the rows of a document stays one figure."""
    monkeypatch.setattr("overproof.importers.objects.CHUNK", chunk)
    path = written(tmp_path, "a.json", '{\n"count": 123456789,\n"data": [{"a": 1}]}')
    assert values(path) == [{"a": 1}]
    assert values(path, under=()) == [{"count": 123456789, "data": [{"a": 1}]}]


@pytest.mark.parametrize(("text", "before"), [
    ('[{"a": 1}, {"a": 2}, {"a": ', 2), ('[{"a": 1} {"a": 2}]', 1), ('[{"a": 1}, nonsense]', 1), ('[{"a": 1}] more', 1),
    ('{"data": [{"a": 1}', 1), ("[", 0), ("[" * 100_000, 0),
])  # fmt: skip
def test_a_broken_array_ends_in_an_error_after_the_rows_before_it(tmp_path, text, before):
    """Rows up to the damage are read; then the file is an error, never a short import."""
    found = []
    with pytest.raises(DataError, match="no complete JSON"):
        found.extend(objects(written(tmp_path, "a.json", text), under=("data",)))
    assert len(found) == before


def test_a_bad_entry_of_an_array_is_kept_aside_alone(tmp_path):
    """An entry that is no object, has a key twice or NaN is a Skipped with its place; the next is read."""
    path = written(tmp_path, "a.json", '[{"a": 1}, 5, {"a": 1, "a": 2}, {"a": NaN}, {"a": 3}]')
    rows = list(objects(path))
    assert [isinstance(row, Skipped) for row in rows] == [False, True, True, True, False]
    assert [row.where for row in rows if isinstance(row, Skipped)] == ["a.json:2", "a.json:3", "a.json:4"]


def test_a_long_array_takes_no_more_memory_than_a_short_one(tmp_path):
    """Peak memory of an array of 8 times the rows (8 MB on one line) is the same but for a megabyte."""

    def peak(n):
        path = tmp_path / f"{n}.json"
        with path.open("w") as file:
            file.write("[")
            file.writelines((", " if i else "") + json.dumps({"text": f"{i} " + "x" * 1_000}) for i in range(n))
            file.write("]")
        tracemalloc.start()
        count = sum(1 for _ in JsonLines().read(path, ColumnMapping(fields=("text",))))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == n
        return most

    small, large = peak(1_000), peak(8_000)
    assert large < small + 1_000_000


def test_folders_and_patterns_are_spelled_out_and_the_rest_is_named(tmp_path):
    """A folder is searched to the bottom by the endings of logs; hidden files are left, others are told."""
    names = ["b.jsonl", "2026/05/a.json.gz", "2026/05/c.csv.zst", "notes.txt", ".hidden/x.jsonl", "d.parquet"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = files.expand([tmp_path])
    assert [str(p.relative_to(tmp_path)) for p in found.files] == ["2026/05/a.json.gz", "2026/05/c.csv.zst", "b.jsonl", "d.parquet"]
    assert [p.name for p in found.passed] == ["notes.txt"]
    assert [p.name for p in files.expand([tmp_path / "*.jsonl", tmp_path / "b.jsonl"]).files] == ["b.jsonl"]
    for wrong in (tmp_path / "*.xml", tmp_path / "gone", tmp_path / ".hidden" / "none"):
        with pytest.raises(DataError, match="no file"):
            files.expand([wrong])


def test_damaged_and_hostile_zstd_stops_with_its_name(tmp_path):
    """A cut .zst and a bomb are errors of the file."""
    data = zstandard.compress(b"".join(b'{"text": "row %d %d"}\n' % (i, random.Random(i).getrandbits(60)) for i in range(5_000)))
    with pytest.raises(DataError, match=r"cut\.jsonl\.zst"):
        list(objects(_raw(tmp_path, "cut.jsonl.zst", data[: len(data) // 2])))
    with pytest.raises(DataError, match=r"noise\.jsonl\.zst"):
        list(objects(_raw(tmp_path, "noise.jsonl.zst", b"not zstd at all")))
    bomb = _raw(tmp_path, "bomb.jsonl.zst", zstandard.compress(b'{"text": "' + b"x" * 200_000_000 + b'"}'))
    with pytest.raises(DataError, match="200 times"):
        list(objects(bomb))
    assert len(list(objects(_raw(tmp_path, "two.jsonl.zst", data + data)))) == 10_000


def _raw(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_the_guess_says_what_it_rests_on(tmp_path):
    """A format that was not named comes with its reason."""
    found = guess(written(tmp_path, "a.csv", "id,text\n1,x\n"))
    assert (found.name, found.reason) == ("csv.v1", "a header line with separators")
