"""The tables of a project: one script for each version, oldest first, and never changed once it was released."""

from __future__ import annotations

from overproof.store.added import TABLE as ADDED
from overproof.store.served_schema import SERVED_SCHEMA

TRAFFIC_SCHEMA = (
    """
    CREATE TABLE record(
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, at_us INTEGER,
        source TEXT NOT NULL, body TEXT NOT NULL) STRICT;
    CREATE INDEX record_in_time ON record(at_us IS NULL, at_us, seq, digest, source);
    CREATE TABLE skipped(
        seq INTEGER PRIMARY KEY, place TEXT NOT NULL, reason TEXT NOT NULL, raw TEXT NOT NULL, source TEXT NOT NULL,
        UNIQUE(place, reason, raw)) STRICT;
    CREATE TABLE conflict(
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL, digest TEXT NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL,
        body TEXT NOT NULL, UNIQUE(id, digest)) STRICT;
    CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    INSERT INTO meta VALUES('epoch', '1');
    """,
    """
    CREATE TABLE feedback(
        seq INTEGER PRIMARY KEY, request_id TEXT NOT NULL, at TEXT NOT NULL, key TEXT NOT NULL,
        kind TEXT NOT NULL CHECK(kind IN ('label','rating','comment')), value TEXT NOT NULL) STRICT;
    CREATE INDEX feedback_of_kind ON feedback(kind, seq);
    CREATE INDEX feedback_of_row ON feedback(request_id);
    CREATE TRIGGER feedback_stays BEFORE UPDATE ON feedback BEGIN SELECT RAISE(ABORT, 'feedback is append-only'); END;
    CREATE TRIGGER feedback_kept BEFORE DELETE ON feedback BEGIN SELECT RAISE(ABORT, 'feedback is append-only'); END;
    CREATE TABLE capture_count(
        day TEXT NOT NULL, task TEXT NOT NULL, slice TEXT NOT NULL, outcome TEXT NOT NULL, n INTEGER NOT NULL,
        PRIMARY KEY(day, task, slice, outcome)) STRICT, WITHOUT ROWID;
    """,
    SERVED_SCHEMA,
    """
    CREATE TABLE erased(mark TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE trace(
        subject TEXT NOT NULL, piece TEXT NOT NULL, mark TEXT NOT NULL, size INTEGER NOT NULL, prefix INTEGER NOT NULL,
        PRIMARY KEY(subject, mark, piece)) STRICT, WITHOUT ROWID;
    CREATE TABLE expired(
        id TEXT PRIMARY KEY, digest TEXT NOT NULL, at_us INTEGER, source TEXT NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
    DROP TRIGGER feedback_stays /* ON feedback */;
    CREATE TRIGGER feedback_stays BEFORE UPDATE ON feedback
        WHEN NEW.value NOT IN ('[erased]', '[expired]') OR NEW.seq <> OLD.seq OR NEW.kind <> OLD.kind OR NEW.at <> OLD.at
        BEGIN SELECT RAISE(ABORT, 'feedback is append-only'); END;
    """,
    ADDED,
    """
    CREATE TABLE retained(pass TEXT NOT NULL, kind TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(pass, kind)) STRICT, WITHOUT ROWID;
    """,
)

PROJECT_SCHEMA = (
    """
    CREATE TABLE role(name TEXT PRIMARY KEY, token INTEGER NOT NULL) STRICT;
    CREATE TABLE budget(
        name TEXT PRIMARY KEY, cap_micro INTEGER NOT NULL CHECK(cap_micro >= 0),
        held_micro INTEGER NOT NULL CHECK(held_micro >= 0), spent_micro INTEGER NOT NULL) STRICT;
    CREATE TABLE attempt(
        id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, key TEXT NOT NULL,
        state TEXT NOT NULL CHECK(state IN ('reserved','ok','bad','transient','permanent','fatal','lost')),
        max_micro INTEGER NOT NULL, cost_micro INTEGER, http_status INTEGER, reason TEXT, model TEXT,
        fingerprint TEXT, provider_request_id TEXT, answer TEXT) STRICT;
    CREATE INDEX attempt_of_key ON attempt(key, state);
    CREATE INDEX attempt_reserved ON attempt(id) WHERE state = 'reserved';
    CREATE TABLE label(
        key TEXT PRIMARY KEY, completion TEXT NOT NULL, attempt INTEGER NOT NULL REFERENCES attempt(id),
        clearance_id TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE decision(
        seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, actor TEXT NOT NULL, subject TEXT NOT NULL,
        body TEXT NOT NULL, prev TEXT NOT NULL, digest TEXT NOT NULL UNIQUE) STRICT;
    CREATE TRIGGER decision_stays BEFORE UPDATE ON decision BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
    CREATE TRIGGER decision_kept BEFORE DELETE ON decision BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
    CREATE TABLE release(
        id TEXT PRIMARY KEY, task TEXT NOT NULL, digest TEXT NOT NULL, body BLOB NOT NULL) STRICT;
    CREATE TABLE release_stage(
        seq INTEGER PRIMARY KEY, release_id TEXT NOT NULL REFERENCES release(id), stage TEXT NOT NULL,
        at TEXT NOT NULL, by TEXT NOT NULL, why TEXT NOT NULL) STRICT;
    CREATE TABLE unsealing(
        sealed_digest TEXT NOT NULL, label_kind TEXT NOT NULL, k INTEGER NOT NULL, plan_hash TEXT NOT NULL,
        delta REAL NOT NULL, delta_k REAL NOT NULL, at TEXT NOT NULL, by TEXT NOT NULL,
        PRIMARY KEY(sealed_digest, label_kind, k), UNIQUE(sealed_digest, label_kind, plan_hash)) STRICT;
    CREATE TABLE sealed_set(
        sealed_digest TEXT PRIMARY KEY, closed_at TEXT, closed_why TEXT) STRICT;
    """,
    """
    CREATE TABLE sealed_row(
        row TEXT NOT NULL, sealed_digest TEXT NOT NULL, PRIMARY KEY(row, sealed_digest)) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE planned(
        plan_hash TEXT PRIMARY KEY, anchor TEXT NOT NULL, sealed_digest TEXT NOT NULL, looks INTEGER NOT NULL,
        facts TEXT NOT NULL, at TEXT NOT NULL) STRICT;
    CREATE INDEX planned_of_anchor ON planned(anchor);
    CREATE TABLE look(
        plan_hash TEXT NOT NULL REFERENCES planned(plan_hash), look INTEGER NOT NULL, sealed_digest TEXT NOT NULL,
        evidence TEXT NOT NULL, at TEXT NOT NULL, by TEXT NOT NULL, counts TEXT NOT NULL DEFAULT '',
        PRIMARY KEY(plan_hash, look), UNIQUE(plan_hash, evidence)) STRICT;
    CREATE TABLE look_row(
        plan_hash TEXT NOT NULL, row TEXT NOT NULL, look INTEGER NOT NULL, PRIMARY KEY(plan_hash, row)) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE review(
        seq INTEGER PRIMARY KEY, digest TEXT NOT NULL, request_id TEXT NOT NULL, label TEXT NOT NULL,
        reviewer TEXT NOT NULL, queue TEXT NOT NULL CHECK(queue IN ('audit','fix')),
        kind TEXT NOT NULL CHECK(kind IN ('review','adjudication','withdrawn')), blind INTEGER NOT NULL,
        seconds REAL, at TEXT NOT NULL) STRICT;
    CREATE INDEX review_of_row ON review(digest, reviewer, queue, seq);
    CREATE TRIGGER review_stays BEFORE UPDATE ON review BEGIN SELECT RAISE(ABORT, 'reviews are append-only'); END;
    CREATE TRIGGER review_kept BEFORE DELETE ON review BEGIN SELECT RAISE(ABORT, 'reviews are append-only'); END;
    """,
    """
    CREATE TABLE batch(
        tag TEXT PRIMARY KEY, pin TEXT NOT NULL, provider_id TEXT, at REAL NOT NULL,
        state TEXT NOT NULL CHECK(state IN ('planned','open','closed','gone'))) STRICT;
    CREATE TABLE batch_row(
        attempt INTEGER PRIMARY KEY REFERENCES attempt(id), tag TEXT NOT NULL REFERENCES batch(tag)) STRICT;
    CREATE INDEX batch_row_of ON batch_row(tag);
    CREATE TABLE canary_round(
        pin TEXT NOT NULL, prompts TEXT NOT NULL, round INTEGER NOT NULL, n INTEGER NOT NULL, differ INTEGER NOT NULL,
        alarm INTEGER NOT NULL, PRIMARY KEY(pin, prompts, round)) STRICT;
    """,
    """
    CREATE TABLE api_key(
        id TEXT PRIMARY KEY, digest BLOB NOT NULL UNIQUE, name TEXT NOT NULL, scopes TEXT NOT NULL, created REAL NOT NULL,
        expires REAL, revoked REAL) STRICT;
    CREATE TRIGGER api_key_stays BEFORE UPDATE OF id, digest, name, scopes, created, expires ON api_key
        BEGIN SELECT RAISE(ABORT, 'a key can only be revoked'); END;
    CREATE TRIGGER api_key_ends BEFORE UPDATE OF revoked ON api_key WHEN old.revoked IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'a revoked key stays revoked'); END;
    CREATE TRIGGER api_key_kept BEFORE DELETE ON api_key BEGIN SELECT RAISE(ABORT, 'keys are revoked, not deleted'); END;
    """,
    """
    CREATE TABLE rollout(
        epoch INTEGER PRIMARY KEY, task TEXT NOT NULL, release_id TEXT NOT NULL REFERENCES release(id), stage TEXT NOT NULL,
        share REAL NOT NULL, since REAL NOT NULL, by TEXT NOT NULL, why TEXT NOT NULL, evidence TEXT NOT NULL,
        body TEXT NOT NULL, decision INTEGER NOT NULL REFERENCES decision(seq)) STRICT;
    CREATE INDEX rollout_of_task ON rollout(task, epoch);
    CREATE TABLE suspended_slice(
        release_id TEXT NOT NULL REFERENCES release(id), slice TEXT NOT NULL, at REAL NOT NULL, by TEXT NOT NULL,
        why TEXT NOT NULL, decision INTEGER NOT NULL REFERENCES decision(seq), PRIMARY KEY(release_id, slice)) STRICT;
    CREATE TABLE stage_count(
        epoch INTEGER NOT NULL, slice TEXT NOT NULL, slot INTEGER NOT NULL, newest REAL NOT NULL,
        requests INTEGER NOT NULL, asked INTEGER NOT NULL, faults INTEGER NOT NULL, kept INTEGER NOT NULL,
        compared INTEGER NOT NULL, disagreed INTEGER NOT NULL, drawn INTEGER NOT NULL, drawn_wrong INTEGER NOT NULL,
        by_student INTEGER NOT NULL, student_failed INTEGER NOT NULL, by_teacher INTEGER NOT NULL,
        teacher_failed INTEGER NOT NULL, PRIMARY KEY(epoch, slice, slot)) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE audit_plan(
        release_id TEXT NOT NULL, day TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY(release_id, day)) STRICT, WITHOUT ROWID;
    CREATE TABLE audit(
        release_id TEXT NOT NULL, request_id TEXT NOT NULL, source TEXT NOT NULL CHECK(source IN ('teacher','person')),
        day TEXT NOT NULL, slice TEXT NOT NULL, pi REAL NOT NULL, said TEXT NOT NULL, confidence REAL NOT NULL,
        state TEXT NOT NULL CHECK(state IN ('due','labelled','overdue','barred')), truth TEXT, wrong INTEGER, reason TEXT NOT NULL,
        cost_micro INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY(release_id, request_id, source)) STRICT, WITHOUT ROWID;
    CREATE INDEX audit_of_day ON audit(release_id, day, slice);
    CREATE TABLE monitor_day(
        release_id TEXT NOT NULL, slice TEXT NOT NULL, signal TEXT NOT NULL, day TEXT NOT NULL, requests INTEGER NOT NULL,
        audited INTEGER NOT NULL, unlabelled INTEGER NOT NULL, wrong_by_pi TEXT NOT NULL,
        PRIMARY KEY(release_id, slice, signal, day)) STRICT, WITHOUT ROWID;
    CREATE TABLE drift_day(
        release_id TEXT NOT NULL, slice TEXT NOT NULL, day TEXT NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY(release_id, slice, day)) STRICT, WITHOUT ROWID;
    CREATE TABLE alarm(
        id TEXT PRIMARY KEY, task TEXT NOT NULL, release_id TEXT NOT NULL, at REAL NOT NULL, body TEXT NOT NULL,
        closed REAL, closed_by TEXT, closed_why TEXT) STRICT;
    CREATE TABLE watch_trigger(
        id TEXT PRIMARY KEY, task TEXT NOT NULL, at REAL NOT NULL, body TEXT NOT NULL,
        state TEXT NOT NULL CHECK(state IN ('open','done','dismissed')), outcome TEXT NOT NULL, ended REAL) STRICT;
    CREATE TABLE held_rollout(
        seq INTEGER PRIMARY KEY, task TEXT NOT NULL, since REAL NOT NULL, by TEXT NOT NULL, why TEXT NOT NULL, cause TEXT NOT NULL,
        ended REAL, ended_by TEXT, ended_why TEXT) STRICT;
    CREATE INDEX held_of_task ON held_rollout(task) WHERE ended IS NULL;
    CREATE TABLE notice(
        id TEXT PRIMARY KEY, task TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE delivery(
        notice TEXT NOT NULL REFERENCES notice(id), channel TEXT NOT NULL, tries INTEGER NOT NULL, next_at REAL, done REAL,
        fault TEXT NOT NULL, PRIMARY KEY(notice, channel)) STRICT, WITHOUT ROWID;
    CREATE TABLE teacher_round(
        pin TEXT NOT NULL, prompts TEXT NOT NULL, round INTEGER NOT NULL, at REAL NOT NULL, cost_micro INTEGER NOT NULL,
        body TEXT NOT NULL, PRIMARY KEY(pin, prompts, round)) STRICT, WITHOUT ROWID;
    CREATE TABLE watch_pass(task TEXT PRIMARY KEY, at REAL NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE INDEX audit_wrong ON audit(request_id) WHERE wrong = 1;
    """,
    """
    CREATE TABLE erasing(
        subject TEXT NOT NULL, place TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(subject, place)) STRICT, WITHOUT ROWID;
    CREATE TABLE aged(
        kind TEXT NOT NULL, upto INTEGER NOT NULL, at TEXT NOT NULL, PRIMARY KEY(kind, upto)) STRICT, WITHOUT ROWID;
    DROP TRIGGER review_stays /* ON review */;
    CREATE TRIGGER review_stays BEFORE UPDATE ON review
        WHEN NEW.kind <> 'withdrawn' OR NEW.label <> '' OR NEW.seq <> OLD.seq OR NEW.at <> OLD.at OR substr(NEW.digest, 1, 7) <> 'erased '
        BEGIN SELECT RAISE(ABORT, 'reviews are append-only'); END;
    """,
    ADDED,
    """
    CREATE TABLE buried(seq INTEGER PRIMARY KEY, digest TEXT NOT NULL) STRICT;
    CREATE TABLE signature(release_id TEXT PRIMARY KEY, raw BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE secret(name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE backup(target TEXT PRIMARY KEY, at TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE retaining(pass TEXT NOT NULL, kind TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(pass, kind)) STRICT, WITHOUT ROWID;
    """,
)
