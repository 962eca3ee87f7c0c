"""Tables: which column is what, and bad rows that never stop an import."""

import gzip
import json
import subprocess
import sys

import duckdb
import pytest

from overproof.data import Skipped, TrafficRecord
from overproof.errors import DataError, MissingExtra
from overproof.importers import ColumnMapping, guess, pick, read_file
from overproof.importers.query import from_query
from overproof.importers.rows import LINE_CAP, BadRow, moment
from overproof.importers.table import Csv, JsonLines, Parquet

MAPPING = ColumnMapping(fields=("subject", "body"))
TEXT = ColumnMapping(fields=("text",))


def written(tmp_path, name, data):
    path = tmp_path / name
    data = data if isinstance(data, bytes) else data.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def rows_of(importer, path, mapping=TEXT):
    return list(importer.read(path, mapping))


def kept(rows):
    return [row for row in rows if isinstance(row, TrafficRecord)]


def aside(rows):
    return [row for row in rows if isinstance(row, Skipped)]


FULL = {
    "id": 17, "ts": 1741000000, "subject": "Card", "body": "It broke", "output": "bug", "model": "m-2026-01-01",
    "finish_reason": "stop", "latency_ms": 250, "prompt_tokens": 10, "completion_tokens": 2, "cost_usd": 0.001,
    "session_id": "s1", "tier": "plus", "quarter": 1, "urgent": True, "gold": "bug", "nested": {"a": 1}, "empty": None,
}  # fmt: skip


def test_every_column_lands_where_its_name_says(tmp_path):
    """Fields, id, time, answer, model, figures and session are found by name; other short scalars become attributes."""
    (record,) = rows_of(JsonLines(), written(tmp_path, "a.jsonl", json.dumps(FULL)), MAPPING)
    request, completion = record.request, record.completion
    assert (request.id, request.at, request.session) == ("17", "2025-03-03T11:06:40.000000Z", "s1")
    assert list(request.fields.items()) == [("subject", "Card"), ("body", "It broke")]
    assert request.attributes == {"tier": "plus", "quarter": "1", "urgent": "true"}
    assert (completion.text, completion.value, completion.model, completion.finish) == ("bug", None, "m-2026-01-01", "stop")
    assert (completion.latency_s, completion.tokens_in, completion.tokens_out, completion.cost_usd) == (0.25, 10, 2, 0.001)
    assert record.gold is None
    assert record.source == "a.jsonl (jsonl.v1)"


def test_gold_is_taken_only_where_the_mapping_names_it(tmp_path):
    """A column called gold is neither label nor attribute until somebody says so; then it is the label only."""
    path = written(tmp_path, "a.jsonl", json.dumps({"text": "x", "queue": "bug", "gold": "no", "lang": "de"}))
    (plain,) = rows_of(JsonLines(), path)
    assert (plain.gold, plain.request.attributes) == (None, {"queue": "bug", "lang": "de"})
    (mapped,) = rows_of(JsonLines(), path, ColumnMapping(fields=("text",), columns={"gold": "queue"}))
    assert (mapped.gold, mapped.request.attributes) == ("bug", {"lang": "de"})


def test_columns_can_be_named_also_inside_objects(tmp_path):
    """A mapping reaches nested values by a dotted path and can list the attributes itself."""
    row = {"in": {"body": "hello"}, "meta": {"tier": "plus", "x": 1}, "when": "2025-03-02 04:28:26", "secret": "s"}
    mapping = ColumnMapping(fields=("text",), columns={"text": "in.body", "at": "when"}, attributes=("meta.tier",))
    (record,) = rows_of(JsonLines(), written(tmp_path, "a.jsonl", json.dumps(row)), mapping)
    assert record.request.fields == {"text": "hello"}
    assert record.request.attributes == {"meta.tier": "plus"}
    assert record.request.at == "2025-03-02T04:28:26.000000Z"


def test_a_misspelt_mapping_is_an_error_not_an_empty_column(tmp_path):
    """A role that doesn't exist fails at once with a suggestion; a column that no row has fails after the file."""
    with pytest.raises(DataError, match="Did you mean 'gold'"):
        ColumnMapping(fields=("text",), columns={"godl": "queue"})
    path = written(tmp_path, "a.jsonl", '{"text": "x", "queue": "bug"}')
    with pytest.raises(DataError, match="'quue'"):
        rows_of(JsonLines(), path, ColumnMapping(fields=("text",), columns={"gold": "quue"}))
    with pytest.raises(DataError, match="no input field"):
        ColumnMapping(fields=())


BAD = {
    "not JSON": b'{"text": "x"',
    "not UTF-8": b'{"text": "\xff"}',
    "'text' is given twice": b'{"text": "x", "text": "y"}',
    "NaN is not a JSON number": b'{"text": "x", "score": NaN}',
    "nested deeper": b'{"text": "x", "deep": ' + b"[" * 100 + b"]" * 100 + b"}",
    "nested deeper than 64": b'{"text": "x", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "expected an object": b'["text"]',
    "lone surrogate": b'{"text": "\\ud800"}',
    "none of the input fields ['text']": b'{"message": "x"}',
    "field 'text' is list": b'{"text": ["x"]}',
    "time 'soon'": b'{"text": "x", "ts": "soon"}',
    "the year 1970": b'{"text": "x", "ts": 20250302}',
    "id is True": b'{"text": "x", "id": true}',
    "latency_ms is 'fast'": b'{"text": "x", "output": "y", "latency_ms": "fast"}',
    "tokens_in is -1": b'{"text": "x", "output": "y", "tokens_in": -1}',
    "longer than": b'{"text": "' + b"x" * (LINE_CAP + 10) + b'"}',
    "not JSON: Exceeds": b'{"text": "x", "n": ' + b"9" * 5_000 + b"}",
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_kept_aside_with_its_place_and_reason(tmp_path, reason):
    """Whatever is wrong with one line, the lines around it are read and the line is a Skipped."""
    path = written(tmp_path, "a.jsonl", b'{"text": "before"}\n' + BAD[reason] + b'\n{"text": "after"}\n')
    rows = rows_of(JsonLines(), path)
    assert [row.request.fields["text"] for row in kept(rows)] == ["before", "after"]
    (bad,) = aside(rows)
    assert bad.where == "a.jsonl:2"
    assert reason in bad.reason
    assert bad.raw[:8] == BAD[reason].decode("utf-8", "replace")[:8]
    assert len(bad.raw) <= 2_000
    bad.raw.encode()


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_marks_and_line_ends_of_other_systems_are_no_content(tmp_path, name, end):
    """A byte-order mark, CRLF, blank lines and gzip change nothing."""
    data = b"\xef\xbb\xbf" + end.join([b'{"text": "one"}', b"", b"  ", b'{"text": "two"}'])
    rows = rows_of(JsonLines(), written(tmp_path, name, data))
    assert [row.request.fields["text"] for row in rows] == ["one", "two"]
    assert rows[1].request.id.endswith("-4")


def test_rows_without_an_id_get_the_same_one_again(tmp_path):
    """A made id comes from content and line: stable over imports, different for equal rows of one file."""
    data = '{"text": "same"}\n{"text": "same"}\n'
    first = [r.request.id for r in rows_of(JsonLines(), written(tmp_path, "a.jsonl", data))]
    again = [r.request.id for r in rows_of(JsonLines(), written(tmp_path, "b.jsonl", data))]
    assert first == again
    assert len(set(first)) == 2


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (1741000000, "2025-03-03T11:06:40.000000Z"),
        (1741000000123, "2025-03-03T11:06:40.123000Z"),
        (1741000000123456, "2025-03-03T11:06:40.123456Z"),
        (1741000000123456789, "2025-03-03T11:06:40.123456Z"),
        (1741000000.25, "2025-03-03T11:06:40.250000Z"),
        ("1741000000", "2025-03-03T11:06:40.000000Z"),
        ("2025-03-03T12:06:40+01:00", "2025-03-03T11:06:40.000000Z"),
        ("2025-03-03 11:06:40.5", "2025-03-03T11:06:40.500000Z"),
        ("20250303", "2025-03-03T00:00:00.000000Z"),
        ("2025-03-03", "2025-03-03T00:00:00.000000Z"),
        (None, None),
        ("", None),
    ],
)
def test_times_of_all_spellings_become_one(value, want):
    """Epochs by magnitude and ISO texts become UTC with microseconds, so that text order is time order."""
    assert moment(value) == want


@pytest.mark.parametrize("value", [True, [], float("nan"), float("inf"), 10**30, "yesterday", 5, "12"])
def test_times_that_can_not_be_are_refused(value):
    """A wrong unit or a word is a bad row, never a time in 1970."""
    with pytest.raises(BadRow):
        moment(value)


def test_an_answer_that_did_not_end_is_no_label(tmp_path):
    """A finish other than stop is kept with a reason; a log that doesn't say is unknown."""
    lines = [{"text": "x", "output": "y", "finish_reason": f} for f in ("stop", "length", "content_filter", "tool_calls", None)]
    rows = rows_of(JsonLines(), written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert [r.completion.finish for r in rows] == ["stop", "length", "filtered", "error", "unknown"]
    assert [r.completion.reason is None for r in rows] == [True, False, False, False, True]


def test_csv_cells_keep_their_lines_and_empty_cells_are_nothing(tmp_path):
    """Quoted cells keep blank lines, an empty cell is no value, and each row knows its first line."""
    data = 'id;subject;body;tier\r\n1;Hi;"first\r\n\r\nlast; end";\r\n\r\n2;"say ""x""";b;plus\r\n'
    rows = rows_of(Csv(), written(tmp_path, "a.csv", b"\xef\xbb\xbf" + data.encode()), MAPPING)
    assert [r.request.fields for r in rows] == [{"subject": "Hi", "body": "first\n\nlast; end"}, {"subject": 'say "x"', "body": "b"}]
    assert [r.request.attributes for r in rows] == [{}, {"tier": "plus"}]


def test_csv_rows_that_do_not_fit_are_kept_aside(tmp_path):
    """Cells that are missing, too many, not UTF-8 or badly quoted are skipped with the row's line, the rest is read."""
    data = b'id,text\n1,ok\n2\n3,a,b\n4,\xff\n5,"a"b\n6,fine\n7,"open\n8,x\n'
    rows = rows_of(Csv(), written(tmp_path, "a.csv", data))
    assert [r.request.id for r in kept(rows)] == ["1", "6"]
    assert [(r.where, r.reason[:12]) for r in aside(rows)] == [
        ("a.csv:3", "1 cells, exp"), ("a.csv:4", "3 cells, exp"), ("a.csv:5", "not UTF-8"),
        ("a.csv:6", "',' expected"), ("a.csv:8", "unexpected e"),
    ]  # fmt: skip
    assert aside(rows)[-1].raw == '7,"open\n8,x'


def test_a_csv_row_torn_by_a_huge_line_is_not_read_in_part(tmp_path):
    """A line over the cap inside a quoted cell spoils its row; the row is never delivered without it."""
    data = b'id,text\n1,"a\n' + b"x" * (LINE_CAP + 5) + b'\nb"\n2,fine\n'
    rows = rows_of(Csv(), written(tmp_path, "a.csv", data))
    assert [r.request.id for r in kept(rows)] == ["2"]
    assert len(aside(rows)) == 2


def test_a_csv_header_must_tell_columns_apart(tmp_path):
    """A repeated or empty column name is an error of the file."""
    for head in ("id,text,text", "id,,text"):
        with pytest.raises(DataError, match="header"):
            rows_of(Csv(), written(tmp_path, "a.csv", f"{head}\n1,2,3\n"))


def parquet(tmp_path, sql, name="a.parquet"):
    path = tmp_path / name
    duckdb.sql(f"COPY ({sql}) TO '{path}' (FORMAT parquet)")
    return path


def test_parquet_types_become_text(tmp_path):
    """Timestamps, decimals, nulls, NaN and nested values of a Parquet file land as those of other tables."""
    sql = """SELECT 7 AS id, 'hello' AS text, TIMESTAMP '2025-03-02 04:28:26' AS ts, 'bug' AS output, 0.5::DECIMAL(4,2)
        AS cost_usd, 'NaN'::DOUBLE AS score, NULL AS missing, [1,2] AS list, 'plus' AS tier, DATE '2025-01-01' AS day
        UNION ALL SELECT 8, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"""
    rows = rows_of(Parquet(), parquet(tmp_path, sql))
    (record,) = kept(rows)
    assert record.request.at == "2025-03-02T04:28:26.000000Z"
    assert record.request.attributes == {"tier": "plus", "day": "2025-01-01"}
    assert (record.completion.text, record.completion.cost_usd) == ("bug", 0.5)
    assert aside(rows)[0].where == "a.parquet:2"


def test_without_duckdb_a_parquet_file_says_what_to_install(tmp_path, monkeypatch):
    """Named, recognised by its first bytes or queried: each time the extra is named; other tables need none of it."""
    path = parquet(tmp_path, "SELECT 'x' AS text")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for read in (
        lambda: rows_of(Parquet(), path),
        lambda: guess(path),
        lambda: list(from_query("duckdb:", "SELECT 1 AS text", ColumnMapping(fields=("text",)), folder=tmp_path).rows),
    ):
        with pytest.raises(MissingExtra) as caught:
            read()
        assert caught.value.next_action == "pip install 'overproof[duckdb]'"
    assert len(rows_of(Csv(), written(tmp_path, "a.csv", "id,text\n1,x\n"))) == 1


def test_parquet_reads_the_one_file_and_nothing_else(tmp_path, monkeypatch):
    """The reader can't be led to other files, and a damaged file is an error with its name."""
    import overproof.importers.duck as room

    opened = []
    real = room.shut

    def watched(connection, folder):
        real(connection, folder)
        for sql in ("SELECT * FROM read_csv('/etc/passwd')", "SET memory_limit='9GB'", "INSTALL httpfs"):
            with pytest.raises(duckdb.Error):
                connection.execute(sql)
            opened.append(sql)

    monkeypatch.setattr(room, "shut", watched)  # the settings are private to the connection
    path = parquet(tmp_path, "SELECT 'x' AS text", "it's.parquet".replace("'", "_"))
    assert len(rows_of(Parquet(), path)) == 1
    assert len(opened) == 3
    whole = path.read_bytes()
    with pytest.raises(DataError, match=r"cut\.parquet"):
        rows_of(Parquet(), written(tmp_path, "cut.parquet", whole[: len(whole) // 2]))
    with pytest.raises(DataError, match="many files"):
        rows_of(Parquet(), written(tmp_path, "a*.parquet", whole))


def test_damaged_and_hostile_archives_stop_with_their_name(tmp_path):
    """A cut .gz, one that unpacks to more than 200 times its size, and UTF-16 are errors of the file, not a short import."""
    data = gzip.compress(b"".join(b'{"text": "row %d"}\n' % i for i in range(5_000)))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="to its end"):
        rows_of(JsonLines(), cut)
    bomb = written(tmp_path, "bomb.jsonl.gz", b" " * 50_000_000)
    with pytest.raises(DataError, match="200 times"):
        rows_of(JsonLines(), bomb)
    with pytest.raises(DataError, match="UTF-16"):
        rows_of(JsonLines(), written(tmp_path, "a.jsonl", '{"text": "x"}'.encode("utf-16")))


def test_the_format_is_picked_by_content(tmp_path):
    """Each log finds its importer, packed or not; a file of another kind is refused with the known names."""
    chat = json.dumps({"messages": [{"role": "user", "content": "x"}]})
    files = {
        "jsonl.v1": written(tmp_path, "a.log", '{"text": "x"}\n'),
        "csv.v1": written(tmp_path, "b.csv.gz", "id,text\n1,x\n"),
        "parquet.v1": parquet(tmp_path, "SELECT 'x' AS text", "c.bin"),
        "openai_chat.v1": written(tmp_path, "d.jsonl.gz", chat),
    }
    assert {pick(path) for path in files.values()} == set(files)
    for name, path in files.items():
        assert pick(path) == name
        assert len(kept(list(read_file(path, TEXT)))) == 1
    for name, data in (("e.pdf", b"%PDF-1.7 ..."), ("f.json", b'"text"'), ("g.jsonl", b"")):
        with pytest.raises(DataError):
            pick(written(tmp_path, name, data))


MEASURE = """
import sys, time
from pathlib import Path
from overproof.importers import ColumnMapping, read_file
start, n = time.perf_counter(), 0
for record in read_file(Path(sys.argv[1]), ColumnMapping(fields=("text",))):
    n += 1
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(n, int(peak.split()[1]) // 1024, round(time.perf_counter() - start, 2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_large_import_needs_little_memory(tmp_path, kind):
    """100,000 rows of 1.2 kB pass through in bounded memory."""
    body = "word " * 230
    path = tmp_path / f"big.{kind}"
    if kind == "parquet":
        duckdb.sql(f"COPY (SELECT i AS id, '{body}' || i AS text, 'plus' AS tier FROM range(100000) t(i)) TO '{path}'")
    else:
        with path.open("w") as out:
            if kind == "csv":
                out.write("id,text,tier\n")
            for i in range(100_000):
                row = {"id": i, "text": f"{body}{i}", "tier": "plus"}
                out.write(f"{json.dumps(row)}\n" if kind == "jsonl" else f"{i},{body}{i},plus\n")
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    n, megabytes, seconds = done.stdout.split()
    print(kind, n, megabytes, "MB", seconds, "s")
    assert int(n) == 100_000
    assert int(megabytes) < (320 if kind == "parquet" else 80)
