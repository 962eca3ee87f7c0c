"""Rows of a query: DuckDB with every other door shut, and a real Postgres where the machine has one."""

import json

import duckdb
import pytest
from tests.postgres import running

from overproof.data import Skipped, TrafficRecord
from overproof.errors import DataError
from overproof.importers import ColumnMapping
from overproof.importers.query import from_query, is_database, shown

TEXT = ColumnMapping(fields=("text",), columns={"gold": "queue", "text": "body"})
ROWS = [{"id": i, "body": f"message {i}", "queue": "bug", "created_at": "2026-05-04 10:00:00", "tier": "plus"} for i in range(2_500)]


def test_a_duckdb_file_is_queried_without_being_changed(tmp_path):
    """Columns of the query are taken by the mapping, in blocks, from a connection that can't write."""
    path = tmp_path / "logs.duckdb"
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE calls AS SELECT * FROM read_json('{tmp_path}/rows.jsonl')")
    source = f"duckdb:{path}"
    found = list(from_query(source, "SELECT * FROM calls ORDER BY id", TEXT, folder=tmp_path).rows)
    assert len(found) == 2_500
    assert (found[7].request.id, found[7].request.fields, found[7].gold) == ("7", {"text": "message 7"}, "bug")
    assert found[7].request.at == "2026-05-04T10:00:00.000000Z"
    assert found[7].source == "duckdb:logs.duckdb (query)"
    odd = list(from_query(source, "SELECT NULL AS body, 'x' AS queue UNION ALL SELECT 'b', 'y'", TEXT, folder=tmp_path).rows)
    assert [isinstance(row, Skipped) for row in odd] == [True, False]
    for sql in ("DELETE FROM calls", "SELECT * FROM read_csv('/etc/passwd')", "SELEKT", "INSTALL httpfs"):
        with pytest.raises(DataError, match="query failed"):
            list(from_query(source, sql, TEXT, folder=tmp_path / "sub").rows)
    with pytest.raises(DataError, match="no file"):
        from_query("duckdb:gone.duckdb", "SELECT 1", TEXT, folder=tmp_path)


def test_files_below_the_project_can_be_queried_and_vendors_rows_keep_their_shape(tmp_path):
    """duckdb: reads files of one folder; --format hands each row to a vendor's importer."""
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS[:5])))
    query = f"SELECT * FROM read_json('{tmp_path}/rows.jsonl') WHERE id > 2"
    assert len(list(from_query("duckdb:", query, TEXT, folder=tmp_path).rows)) == 2
    messages = json.dumps([{"role": "user", "content": "hi"}])
    sql = f"SELECT 'r1' AS request_id, 'completion' AS call_type, '{messages}' AS messages, TIMESTAMP '2026-05-04 10:00:00' AS \"startTime\", 7 AS odd"
    found = from_query("duckdb:", sql, ColumnMapping(fields=("text",)), folder=tmp_path, use="overproof.importers.litellm:LiteLLM")
    (record,) = found.rows
    assert (record.request.id, record.request.fields, record.request.at) == ("r1", {"text": "hi"}, "2026-05-04T10:00:00.000000Z")
    assert found.notes.ignored == {"odd": 1}


def test_a_password_never_goes_through_the_command_line(tmp_path):
    """An address with a password is refused, and no address is shown with its user."""
    for address in ("postgresql://me:secret@host/shop", "postgresql://host/shop?password=secret"):
        assert is_database(address)
        with pytest.raises(DataError, match="password") as error:
            from_query(address, "SELECT 1", TEXT, folder=tmp_path)
        assert "secret" not in str(error.value)
    assert shown("postgresql://me@host/shop") == "postgresql:shop"
    assert not is_database("logs/a.jsonl")


@pytest.fixture(scope="module")
def postgres():
    with running() as server:
        yield server.dsn


def test_postgres_rows_come_in_blocks_and_nothing_can_be_written(postgres, tmp_path):
    """A real server: rows by a server-side cursor, types kept, writing refused, errors without the address."""
    import psycopg

    with psycopg.connect(postgres) as connection:
        connection.execute("CREATE TABLE calls (id int, body text, queue text, created_at timestamptz, meta jsonb)")
        connection.execute(
            "INSERT INTO calls SELECT i, 'message ' || i, 'bug', '2026-05-04 10:00:00+00', '{\"a\": 1}' FROM generate_series(0, 2499) i"
        )
    found = from_query(postgres, "SELECT * FROM calls ORDER BY id", TEXT, folder=tmp_path)
    rows = list(found.rows)
    assert len(rows) == 2_500
    assert all(isinstance(row, TrafficRecord) for row in rows)
    assert (rows[7].request.id, rows[7].request.fields["text"], rows[7].gold) == ("7", "message 7", "bug")
    assert rows[7].request.at == "2026-05-04T10:00:00.000000Z"
    assert found.notes.ignored == {"meta": 2_500}
    with psycopg.connect(postgres) as connection:
        connection.execute("CREATE SEQUENCE tickets")
    for sql in ("DELETE FROM calls", "SELECT nextval('tickets') AS id, 'x' AS body, 'y' AS queue", "WITH gone AS (DELETE FROM calls RETURNING *) SELECT * FROM gone", "SELEKT"):
        with pytest.raises(DataError, match="postgresql:postgres"):
            list(from_query(postgres, sql, TEXT, folder=tmp_path).rows)
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (2_500,)
