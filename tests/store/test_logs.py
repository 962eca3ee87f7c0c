"""The traffic log takes every row once, in order; the decisions log can't be changed unseen."""

import dataclasses
import json

import apsw
import pytest

from overproof.data import Completion, Request, Served, Skipped, TrafficRecord, Turn, digest_of
from overproof.errors import CorruptArtifact, StoreError
from overproof.store import decisions, logs
from overproof.store.project_store import open_store


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


def row(number, text=None, *, at=None, gold=None, source="", completion=None):
    request = Request(
        id=f"r{number}",
        fields={"subject": text or f"text {number}", "body": "b"},
        at=at,
        attributes={"tier": "gold"},
        session="s",
    )
    return TrafficRecord(request=request, completion=completion, gold=gold, source=source)


FULL = Completion(text="{}", value="a", model="m", finish="length", tokens_in=1, tokens_out=2, latency_s=0.1, cost_usd=1e-7, reason="x")


def test_rows_come_back_as_they_went_in(store):
    """Every field survives, order of the input fields included."""
    rows = [row(1, gold="g", completion=FULL, source="may.jsonl"), row(2, 'ünï \x00 \U0001f600 \\ "')]
    store.traffic.append(rows, "may.jsonl")
    back = list(store.traffic.read())
    assert back == [rows[0], row(2, 'ünï \x00 \U0001f600 \\ "', source="may.jsonl")]
    assert list(back[0].request.fields) == ["subject", "body"]


def test_a_prompt_before_every_message_is_one_object(store):
    """A million rows with the same system prompt hold it once; what a person said stays each row's own."""
    turns = (Turn(role="system", text="Route the message."), Turn(role="user", text="Where is it?"))
    store.traffic.append([dataclasses.replace(row(i), context=turns) for i in range(2)], "may.jsonl")
    one, two = store.traffic.read(context=True)
    assert one.context == two.context == turns
    assert one.context[0] is two.context[0]


def test_who_chose_a_row_for_a_true_label_is_kept_and_rows_without_a_mark_are_stored_as_before():
    """The mark is part of the row; a log that never had one keeps its digests."""
    plain = row(1, gold="bug")
    marked = dataclasses.replace(plain, gold_from="review-fix")
    assert '"gold_from"' not in logs._line_of(plain).body
    assert logs._line_of(marked).digest != logs._line_of(plain).digest
    assert logs._record_of(logs._line_of(marked).body, marked.source, context=True, shared=logs._Shared()) == marked
    assert logs._record_of(logs._line_of(plain).body, plain.source, context=True, shared=logs._Shared()) == plain


def test_the_same_rows_twice_add_nothing(store):
    """Importing a file again, also from another place, adds no row and leaves version and digest alone."""
    rows = [row(i) for i in range(2500)] + [Skipped(where="a:1", reason="bad", raw="x")]
    first = store.traffic.append(rows, "a.jsonl")
    assert (first.added, first.already_there, first.skipped, first.conflicts) == (2500, 0, 1, 0)
    before = store.traffic.version(), store.traffic.snapshot_digest()
    again = store.traffic.append(rows, "copy/a.jsonl")
    assert (again.added, again.already_there, again.skipped, again.conflicts) == (0, 2500, 1, 0)
    assert again.total == 2501
    assert (store.traffic.version(), store.traffic.snapshot_digest()) == before
    assert dict(store.traffic.counts().skipped) == {"bad": 1}
    assert store.traffic.counts().records == 2500


def test_the_same_id_with_other_content_is_kept_aside(store):
    """A conflict is counted, the first row stays, the other one can be looked at."""
    store.traffic.append([row(1, "first")], "a")
    report = store.traffic.append([row(1, "other"), row(1, "other"), row(1, "first")], "b")
    assert (report.added, report.already_there, report.conflicts) == (0, 1, 2)
    assert [r.request.fields["subject"] for r in store.traffic.read()] == ["first"]
    assert [r.request.fields["subject"] for r in store.traffic.conflicts()] == ["other"]
    assert store.traffic.counts().conflicts == 1


def test_replace_takes_the_new_row_and_keeps_the_old_one_aside(store):
    """With `replace` the corrected import wins, the log has another version and digest, nothing is lost."""
    store.traffic.append([row(1, "first"), row(2)], "a")
    version, digest = store.traffic.version(), store.traffic.snapshot_digest()
    report = store.traffic.append([row(1, "corrected"), row(2), row(3)], "b", replace=True)
    assert (report.added, report.already_there, report.replaced, report.conflicts) == (1, 1, 1, 0)
    assert [r.request.fields["subject"] for r in store.traffic.read()] == ["corrected", "text 2", "text 3"]
    assert [r.request.fields["subject"] for r in store.traffic.conflicts()] == ["first"]
    assert store.traffic.version().epoch > version.epoch
    assert store.traffic.snapshot_digest() != digest
    with pytest.raises(StoreError, match="replaced while it was read"):
        list(store.traffic.read(version))
    store.traffic.append([row(1, "first")], "c", replace=True)
    assert [r.request.fields["subject"] for r in store.traffic.conflicts()] == ["corrected"]


def test_reading_is_in_order_of_time_then_arrival(store):
    """Times are compared as times, not as texts; equal times keep their order; rows without one come last."""
    times = {
        "none": None,
        "later": "2026-05-01T10:00:00.5Z",
        "sooner": "2026-05-01T10:00:00Z",
        "zone": "2026-05-01T11:30:00+02:00",
        "naive": "2026-05-01T09:45:00",
        "same a": "2026-05-02",
        "same b": "2026-05-02T00:00:00Z",
    }
    store.traffic.append([row(name, at=at) for name, at in times.items()], "a")
    assert [r.request.id for r in store.traffic.read()] == [
        "rzone", "rnaive", "rsooner", "rlater", "rsame a", "rsame b", "rnone",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        row(1, at="yesterday"),
        row(1, completion=Completion(text="", value=None, model="", latency_s=float("nan"))),
        row("\ud800"),
    ],
)
def test_a_row_that_cannot_be_stored_is_counted_not_raised(store, bad):
    """A time that is none, NaN, or an id that is no text is skipped with its reason; the other rows go in."""
    report = store.traffic.append([row(5), bad, row(6)], "a")
    assert (report.added, report.skipped) == (2, 1)
    (kept,) = store.traffic.skipped()
    assert "can't be stored" in kept.reason


def test_lone_surrogates_in_texts_survive(store):
    """Broken UTF-16 in an input is kept as it is, and doesn't stop an import."""
    store.traffic.append([row(1, "a\ud800\\b"), Skipped(where="a:1", reason="r", raw="\udcff")], "a")
    assert next(store.traffic.read()).request.fields["subject"] == "a\ud800\\b"
    assert len(list(store.traffic.skipped())) == 1


def test_the_digest_is_that_of_content_and_order(store, tmp_path):
    """Equal rows in equal order have the same digest in another store; a changed field or order gives another one."""

    def digest_of(name, rows):
        (tmp_path / name).mkdir()
        with open_store(tmp_path / name) as other:
            other.traffic.append(rows, "a")
            return other.traffic.snapshot_digest()

    a, b = row(1, at="2026-01-01"), row(2, at="2026-01-02")
    base = digest_of("one", [a, b])
    assert digest_of("two", [b, a]) == base  # time decides the order
    assert digest_of("three", [row(1), row(2)]) != digest_of("four", [row(2), row(1)])
    assert digest_of("five", [a, row(2, at="2026-01-02", gold="g")]) != base


def test_a_snapshot_is_that_of_its_moment(store):
    """Rows that arrive after a version was taken are in neither its digest nor its reading."""
    store.traffic.append([row(1)], "a")
    version = store.traffic.version()
    digest = store.traffic.snapshot_digest(version)
    store.traffic.append([row(2)], "a")
    assert [r.request.id for r in store.traffic.read(version)] == ["r1"]
    assert store.traffic.snapshot_digest(version) == digest
    assert store.traffic.snapshot_digest() != digest


def test_an_unchanged_log_is_not_read_again_for_its_digest(store, monkeypatch):
    """The digest of an unchanged log is remembered, so that `status` needn't read a million rows."""
    store.traffic.append([row(1)], "a")
    digest = store.traffic.snapshot_digest()
    monkeypatch.setattr(store.traffic._db, "stream", None)
    assert store.traffic.snapshot_digest() == digest


def test_decisions_are_chained_and_readable(store):
    """Entries come back in order with their links, and the chain verifies."""
    store.decisions.append("waiver", actor="Dana", subject="G08", body={"why": "known", "rows": [1, 2.5, None]})
    store.decisions.append("release", actor="gate", subject="r1", body={})
    first, second = store.decisions.read()
    assert (first.seq, first.prev, second.prev) == (1, "", first.digest)
    assert first.body == {"why": "known", "rows": [1, 2.5, None]}
    assert store.decisions.verify() == 2


def test_decisions_cannot_be_changed_through_the_database(store):
    """Update and delete are refused by the database itself."""
    store.decisions.append("waiver", actor="Dana", subject="G08", body={})
    db = store.decisions._db
    for sql in ("UPDATE decision SET actor='Eve'", "DELETE FROM decision"):
        with pytest.raises(apsw.ConstraintError, match="append-only"), db.write() as connection:
            connection.execute(sql)


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE decision SET actor='Eve' WHERE seq=2",
        "UPDATE decision SET body='{\"a\":2}' WHERE seq=1",
        "UPDATE decision SET at='2020-01-01' WHERE seq=3",
        "DELETE FROM decision WHERE seq=2",
        "DELETE FROM decision WHERE seq=1",
        "UPDATE decision SET seq=10 WHERE seq=3",
    ],
)
def test_a_tampered_chain_is_found(store, tamper):
    """Whoever changes or removes an entry behind the triggers is found out, with the entry's number."""
    for i in range(4):
        store.decisions.append("k", actor=f"a{i}", subject="s", body={"a": i})
    with store.decisions._db.write() as connection:
        connection.execute("DROP TRIGGER decision_stays; DROP TRIGGER decision_kept;")
        connection.execute(tamper)
    with pytest.raises(CorruptArtifact, match="doesn't fit the chain"):
        store.decisions.verify()


def test_an_entry_that_was_forged_with_its_digest_is_found(store):
    """A changed entry whose own digest was computed anew is given away by the link of the next one."""
    for i in range(3):
        store.decisions.append("k", actor=f"a{i}", subject="s", body={"a": i})
    second = list(store.decisions.read())[1]
    row = {**dataclasses.asdict(second), "actor": "Eve"}
    row.pop("digest")
    with store.decisions._db.write() as connection:
        connection.execute("DROP TRIGGER decision_stays")
        connection.execute("UPDATE decision SET actor='Eve', digest=? WHERE seq=2", (digest_of(row),))
    with pytest.raises(CorruptArtifact, match="decision 3"):
        store.decisions.verify()


def test_a_clock_that_was_set_back_does_not_put_decisions_out_of_order(store, monkeypatch):
    """Times of entries never fall, whatever the wall clock does."""
    store.decisions.append("k", actor="a", subject="s", body={})
    monkeypatch.setattr(decisions, "now", lambda: "2001-01-01T00:00:00+00:00")
    store.decisions.append("k", actor="a", subject="s", body={})
    first, second = store.decisions.read()
    assert second.at == first.at
    assert store.decisions.verify() == 2


def test_the_store_keeps_itself_out_of_repositories(tmp_path):
    """Opening a project writes an ignore file: traffic must not end up in a commit."""
    with open_store(tmp_path):
        assert (tmp_path / ".overproof" / ".gitignore").read_text() == "*\n"
    with pytest.raises(StoreError, match="not a folder"):
        open_store(tmp_path / "missing")


def test_bodies_are_plain_json(store):
    """What the log holds can be read by anybody with SQLite and a JSON parser."""
    store.traffic.append([row(1)], "a")
    ((body,),) = store.traffic._db.rows("SELECT body FROM record")
    assert json.loads(body)["fields"] == {"subject": "text 1", "body": "b"}


HOW = Served(
    route="student", reason="confident", stage="canary", endpoint="/v1/chat/completions", status=200, latency_s=0.01, overhead_s=0.001,
    first_byte_s=0.005, streamed=True, task="inbox", release="r-1", slice="tier=gold", guess="bug", confidence=0.97, kept=True, key="k1",
    weight=2.5, truncated=True, degraded=True, asked="d1",
)  # fmt: skip


def test_how_a_row_was_served_comes_back_and_rows_without_it_are_stored_as_before(store):
    """All of it, or the little that a plain pass-through leaves; an imported row's digest does not move."""
    little = Served(route="teacher", reason="stage", stage="teacher-only", endpoint="/v1/models", status=200, latency_s=0.1, overhead_s=0.0)
    assert all(getattr(HOW, f.name) != f.default for f in dataclasses.fields(Served))
    rows = [dataclasses.replace(row(1, source="a"), served=HOW), dataclasses.replace(row(2, source="a"), served=little), row(3, source="a")]
    store.traffic.append(rows, "a")
    assert list(store.traffic.read()) == rows
    assert '"served"' not in logs._line_of(row(3)).body
    assert '"weight"' not in logs._line_of(rows[1]).body
    assert logs._line_of(row(1)).digest == "3ec0c3b28ca8e851d034aad1f1b1be0cd5787ce408fd3524b0288660a8e02a3e"  # as the version before wrote it


def test_a_log_of_the_first_schema_is_brought_up_to_date_and_keeps_its_rows(tmp_path):
    """With a copy of the old file beside it; rows, version and snapshot digest stay."""
    from overproof.store.local import Db
    from overproof.store.schema import TRAFFIC_SCHEMA

    home = tmp_path / ".overproof"
    old = Db(home / "traffic.db", TRAFFIC_SCHEMA[:1])
    line = logs._line_of(row(1))
    with old.write() as connection:
        connection.execute(logs._INSERT, (line.id, line.digest, line.at_us, "a", line.body))
    old.close()
    with open_store(tmp_path) as store:
        assert [r.request.id for r in store.traffic.read()] == ["r1"]
        assert store.captured.health().served == 0
        assert store.captured.feedback() == []
    assert (home / "traffic.db.v1.bak").exists()


def test_rows_of_our_own_making_go_in_together_as_they_would_one_by_one(tmp_path):
    """New ones, one twice, one that is there already, and one whose id another row has."""

    def row(name, text):
        return TrafficRecord(request=Request(id=name, fields={"text": text}), completion=None)

    given = [row("a", "x"), row("b", "y"), row("b", "y"), row("c", "other"), row("d", "z"), row("d", "not z")]
    found = []
    for many in (True, False):
        root = tmp_path / str(many)
        root.mkdir()
        with open_store(root) as store, store.traffic._db.write() as connection:
            store.traffic.put(connection, row("c", "first"), "s")
            if many:
                ways = store.traffic.put_made(connection, given, "s")
            else:
                ways = [store.traffic.put(connection, one, "s") for one in given]
            found.append((ways, list(connection.execute("SELECT id, digest, source, body FROM record ORDER BY seq")), list(connection.execute("SELECT id, digest FROM conflict ORDER BY id"))))
    assert found[0] == found[1]
    assert found[0][0] == ["added", "added", "already_there", "conflicts", "added", "conflicts"]
