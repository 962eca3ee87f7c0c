"""Audits of live answers: drawn once, asked once, paid within the cap, judged blind by people, counted whole."""

import csv
import io
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.watch.audited import DAY, MODEL, NOON, live, project_in, release_in, row, truth_of

from overproof.cli import main
from overproof.data import ALL, Audit, Completion
from overproof.errors import StoreError
from overproof.outputs import Classes
from overproof.store.project_store import open_store
from overproof.testing import Faults, FaultTeacher
from overproof.watch.audit_plan import chance
from overproof.watch.audit_teacher import ask, judged
from overproof.watch.audits import audit_pass, draw, plan_day, settle

ALL_DRAWN = "audit_rate = 1.0\n"


@pytest.fixture
def teacher():
    with FaultTeacher(truth_of, model=MODEL) as running:
        yield running


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


def states(store, **which):
    return {a.request_id: a.state for a in store.watching.audits("r1", **which)}


def day_counts(store, name=ALL, signal="disagreement"):
    return [(d.day, d.requests, d.audited, d.unlabelled, d.wrong) for d in store.watching.days("r1").get((name, signal), [])]


def test_only_what_the_student_answered_for_this_release_is_audited_and_drawing_again_adds_nothing(store, tmp_path) -> None:
    """Teacher rows, outage rows, other releases and other days stay out; the plan comes first."""
    project, release = project_in(tmp_path, watch=ALL_DRAWN), release_in(store)
    live(store, [
        row("a"), row("b", "login", "billing", slice_name="paying"), row("t", route="teacher", reason="below_threshold"),
        row("d", degraded=True, reason="outage", kept=False), row("o", release="r0"), row("n", day=DAY + timedelta(days=1)), row("e", guess=None),
    ])  # fmt: skip
    with pytest.raises(StoreError, match="no plan"):
        draw(store, project, release, DAY)
    plan_day(store, project, release, DAY)
    drawn = draw(store, project, release, DAY)
    assert [(a.request_id, a.slice, a.said, a.pi, a.source) for a in drawn] == [("a", "other", "login", 1.0, "teacher"), ("b", "paying", "billing", 1.0, "teacher")]
    assert draw(store, project, release, DAY) == []
    live(store, [row("late")])
    assert [a.request_id for a in draw(store, project, release, DAY)] == ["late"]


def test_the_draw_depends_on_the_projects_secret_and_the_release(store, tmp_path) -> None:
    """Nobody can tell from an id whether it is audited, and another release draws others."""
    project = project_in(tmp_path, watch="audit_rate = 0.3\nfloor_per_day = 0")
    first, second = release_in(store), release_in(store, "r2")
    live(store, [row(f"a{i}") for i in range(200)])
    live(store, [row(f"b{i}", release="r2", text=f"x {i}") for i in range(200)])
    found = []
    for release in (first, second):
        plan, drawn = plan_day(store, project, release, DAY), draw(store, project, release, DAY)
        assert {a.pi for a in drawn} == {chance(plan, "other", 0.95)}
        found.append({a.request_id[1:] for a in drawn})
    assert all(30 < len(ids) < 90 for ids in found)
    assert found[0] != found[1]


def test_the_teacher_is_asked_once_and_wrong_answers_are_counted_by_day(store, tmp_path, teacher) -> None:
    """A second pass asks nothing; the closed day has its counts by slice and overall."""
    project, release = project_in(tmp_path, teacher.port, watch=ALL_DRAWN), release_in(store)
    live(store, [row("a"), row("b", "login", "billing", slice_name="paying"), row("c", "delivery", "billing"), row("d")])
    with store.role("watch"):
        done = audit_pass(store, project, release, now=NOON)
        assert store.ledger._db.holds("watch"), "the pass is still the watch after it was the run"
    assert (done.drawn, done.labelled, done.due, done.notes) == (4, 4, 0, ())
    assert {a.request_id: (a.truth, a.wrong) for a in store.watching.audits("r1")} == {
        "a": ("login", False), "b": ("login", True), "c": ("delivery", True), "d": ("login", False),
    }  # fmt: skip
    assert day_counts(store) == [(DAY, 4, 4, 0, 2)]
    assert day_counts(store, "paying") == [(DAY, 1, 1, 0, 1)]
    billed = teacher.stats.billed
    again = audit_pass(store, project, release, now=NOON + timedelta(hours=1))
    assert (again.drawn, again.labelled, teacher.stats.billed) == (0, 0, billed)
    assert billed == 4
    assert store.watching.spent_usd("2026-11") == pytest.approx(store.watching.charged_usd("2026-11"))
    assert store.watching.charged_usd("2026-11") > 0


def test_the_same_message_is_paid_for_once(store, tmp_path, teacher) -> None:
    """Three requests with one content are one call, in one pass or in two; only one audit bears the cost."""
    project, release = project_in(tmp_path, teacher.port, watch=ALL_DRAWN), release_in(store)
    live(store, [row(f"a{i}", text="where is my login") for i in range(3)])
    audit_pass(store, project, release, now=NOON)
    live(store, [row("b", day=DAY + timedelta(days=1), text="where is my login")])
    done = audit_pass(store, project, release, now=NOON + timedelta(days=1))
    assert (done.labelled, teacher.stats.billed) == (1, 1)
    assert sum(a.cost_usd > 0 for a in store.watching.audits("r1")) == 1


def test_a_fault_of_the_teacher_leaves_audits_due_and_the_next_pass_goes_on(store, tmp_path) -> None:
    """A refused key is a note, not an end: the day is counted with its words missing, and mended later."""
    with FaultTeacher(truth_of, model=MODEL, faults=Faults(script=("ok", "401", "401", "401", "401", "401", "401"))) as teacher:
        project, release = project_in(tmp_path, teacher.port, watch=ALL_DRAWN, teacher="concurrency = 1"), release_in(store)
        live(store, [row(f"a{i}", "login", "billing") for i in range(5)])
        done = audit_pass(store, project, release, now=NOON)
        assert (done.drawn, done.labelled, done.due) == (5, 1, 4)
        assert "audits wait" in done.notes[0]
        assert day_counts(store) == [(DAY, 5, 5, 4, 1)]
        teacher.faults = Faults()
        done = audit_pass(store, project, release, now=NOON + timedelta(hours=1))
        assert (done.drawn, done.labelled, done.due, teacher.stats.fates["ok"]) == (0, 4, 0, 5)
        assert day_counts(store) == [(DAY, 5, 5, 0, 5)]


def test_a_teacher_that_is_not_cleared_is_not_asked(store, tmp_path, teacher) -> None:
    """Terms for another model: no call is made, the audits wait, and the note says why."""
    project_in(tmp_path, teacher.port, watch=ALL_DRAWN)
    (tmp_path / "terms.toml").write_text((tmp_path / "terms.toml").read_text().replace(MODEL, "another-2026-01-01"))
    from overproof.project import load_project

    project, release = load_project(tmp_path), release_in(store)
    live(store, [row("a")])
    done = audit_pass(store, project, release, now=NOON)
    assert (done.due, teacher.stats.wire) == (1, 0)
    assert "audits wait" in done.notes[0]


@pytest.mark.parametrize("fate", ["refusal", "length", "wrong_label", "empty"])
def test_answers_that_can_not_be_judged_are_barred_and_never_count_as_right(store, tmp_path, fate) -> None:
    """Refused, cut and off-form answers lack a word in the day's counts, which starves the monitor."""
    with FaultTeacher(truth_of, model=MODEL, faults=Faults(rates={fate: 1.0})) as teacher:
        project, release = project_in(tmp_path, teacher.port, watch=ALL_DRAWN), release_in(store)
        live(store, [row("a"), row("b")])
        done = audit_pass(store, project, release, now=NOON)
        assert (done.labelled, done.barred, done.due) == (0, 2, 0)
        assert all(a.reason and a.wrong is None for a in store.watching.audits("r1", state="barred"))
        assert day_counts(store) == [(DAY, 2, 2, 2, 0)]
        wire = teacher.stats.wire
        audit_pass(store, project, release, now=NOON + timedelta(hours=1))
        assert teacher.stats.wire == wire


def test_a_teachers_answer_is_compared_as_the_task_says() -> None:
    """Another spelling of the same label is right; no label at all is barred."""
    audit = Audit(release_id="r1", request_id="a", day="2026-11-03", slice="s", source="teacher", pi=1.0, said="login", confidence=0.9)
    output = Classes(labels=("billing", "login"))
    said = lambda value: judged(audit, Completion(text="", value=value, model="m", reason="r"), output)  # noqa: E731
    assert [(a.state, a.wrong) for a in map(said, ("LOGIN", "billing", "nonsense", None))] == [
        ("labelled", False), ("labelled", True), ("barred", None), ("barred", None),
    ]  # fmt: skip


def test_a_kill_between_payment_and_record_pays_nothing_twice(store, tmp_path, teacher, monkeypatch) -> None:
    """The answers are in the ledger: the next pass takes them from there."""
    project, release = project_in(tmp_path, teacher.port, watch=ALL_DRAWN), release_in(store)
    live(store, [row(f"a{i}") for i in range(6)])
    plan_day(store, project, release, DAY)
    drawn = draw(store, project, release, DAY)

    def killed(audits):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.watching, "settle", killed)
        with pytest.raises(KeyboardInterrupt):
            ask(store, project, drawn, NOON)
    assert set(states(store).values()) == {"due"}
    billed = teacher.stats.billed
    assert ask(store, project, drawn, NOON).labelled == 6
    assert teacher.stats.billed == billed == 6


def test_a_pass_that_was_killed_before_it_could_count_is_mended_by_the_next(store, tmp_path, teacher) -> None:
    """The day's counts follow its audits, whoever settled them and when."""
    project, release = project_in(tmp_path, teacher.port, watch=ALL_DRAWN), release_in(store)
    live(store, [row("a", "login", "billing"), row("b")])
    audit_pass(store, project, release, now=NOON, asking=False)
    assert day_counts(store) == [(DAY, 2, 2, 2, 0)]
    assert ask(store, project, store.watching.audits("r1", state="due"), NOON).labelled == 2
    audit_pass(store, project, release, now=NOON)
    assert day_counts(store) == [(DAY, 2, 2, 0, 1)]


def test_a_pass_asks_no_more_than_it_was_told_and_oldest_first(store, tmp_path, teacher) -> None:
    """The rest stays due for the next pass."""
    project, release = project_in(tmp_path, teacher.port, watch=ALL_DRAWN), release_in(store)
    live(store, [row(f"a{i}") for i in range(4)])
    live(store, [row(f"b{i}", day=DAY - timedelta(days=1)) for i in range(4)])
    done = audit_pass(store, project, release, now=NOON, most=5)
    assert (done.drawn, done.labelled, done.due) == (8, 5, 3)
    assert {name[0] for name, state in states(store).items() if state == "due"} == {"a"}
    assert audit_pass(store, project, release, now=NOON, asking=False).due == 3


def test_the_months_cap_holds_and_what_it_leaves_out_is_seen(store, tmp_path, teacher) -> None:
    """The ledger itself refuses the call that could exceed [watch] usd_per_month; the project's own budget goes on."""
    project, release = project_in(tmp_path, teacher.port, watch=f"{ALL_DRAWN}usd_per_month = 0.01"), release_in(store)
    live(store, [row(f"a{i}") for i in range(40)])
    done = audit_pass(store, project, release, now=NOON)
    assert 0 < done.labelled < 40
    assert "usd_per_month of 2026-11" in done.notes[0]
    assert 0 < store.watching.charged_usd("2026-11") <= 0.01
    assert store.ledger.spent_usd == pytest.approx(store.watching.charged_usd("2026-11"))
    counts = day_counts(store)
    assert counts[0][3] == 40 - done.labelled
    project = project_in(tmp_path, teacher.port, watch=f"{ALL_DRAWN}usd_per_month = 10")
    assert audit_pass(store, project, release, now=NOON + timedelta(hours=1)).due == 0


PASS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.watch.audits import audit_pass
with open_store(Path(sys.argv[1])) as store:
    print("READY", flush=True)
    sys.stdin.readline()
    done = audit_pass(store, load_project(Path(sys.argv[1])), store.releases.get("r1"), now=datetime(2026, 11, 4, 12, tzinfo=UTC))
    print(done.drawn, done.labelled)
"""


def test_two_passes_at_once_keep_the_cap_and_draw_and_pay_each_audit_once(tmp_path) -> None:
    """Two processes race: each request is drawn once and bought once, and the cap holds whoever buys."""
    with FaultTeacher(truth_of, model=MODEL, faults=Faults(latency_s=0.02)) as teacher:
        project_in(tmp_path, teacher.port, watch=f"{ALL_DRAWN}usd_per_month = 0.012")
        with open_store(tmp_path) as store:
            release_in(store)
            live(store, [row(f"a{i}") for i in range(60)])
        both = [
            subprocess.Popen([sys.executable, "-c", PASS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        assert [one.stdout.readline() for one in both] == ["READY\n"] * 2
        said = [None, None]

        def finish(number):
            said[number] = both[number].communicate("go\n", timeout=120)[0].split()

        threads = [threading.Thread(target=finish, args=(n,)) for n in range(2)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        with open_store(tmp_path) as store:
            assert len(store.watching.audits("r1")) == 60
            assert sum(int(labelled) for _, labelled in said) == len(store.watching.audits("r1", state="labelled"))
            labelled = store.watching.audits("r1", state="labelled")
            assert 0 < len(labelled) < 60
            assert store.watching.charged_usd("2026-11") <= 0.012
            assert teacher.stats.billed == store.ledger.counts().attempts["ok"]
            assert sum(a.cost_usd for a in labelled) <= store.watching.charged_usd("2026-11") + 1e-9


def test_a_second_watch_is_refused(store, tmp_path) -> None:
    """One watch at a time, whoever holds the role."""
    with store.role("watch"), open_store(tmp_path) as other, pytest.raises(StoreError, match="watch"), other.role("watch"):
        pass


def test_while_a_run_buys_labels_audits_wait(store, tmp_path, teacher) -> None:
    """The ledger has one writer at a time: the pass says so and goes on without."""
    project, release = project_in(tmp_path, teacher.port, watch=ALL_DRAWN), release_in(store)
    live(store, [row("a")])
    with open_store(tmp_path) as other, other.role("run"):
        done = audit_pass(store, project, release, now=NOON)
    assert (done.drawn, done.due, teacher.stats.wire) == (1, 1, 0)
    assert "overproof run" in done.notes[0]


def test_days_nobody_watched_are_starved_and_late_audits_are_overdue(store, tmp_path, teacher) -> None:
    """A watch that comes back after a fortnight asks about the last week, and marks what it has missed."""
    project, release = project_in(tmp_path, teacher.port, watch=ALL_DRAWN), release_in(store)
    live(store, [row(f"{d}-{i}", day=DAY + timedelta(days=d)) for d in range(15) for i in range(3)])
    audit_pass(store, project, release, now=NOON, asking=False)
    done = audit_pass(store, project, release, now=NOON + timedelta(days=14), asking=False)
    assert done.overdue > 0
    counts = {day: (audited, unlabelled) for day, _, audited, unlabelled, _ in day_counts(store)}
    assert all(unlabelled == audited > 0 for audited, unlabelled in counts.values())
    assert [day for day in range(15) if DAY + timedelta(days=day) not in counts] == []
    assert any("did not run" in note for note in done.notes)
    assert {a.day for a in store.watching.audits("r1", state="due")} == {(DAY + timedelta(days=d)).isoformat() for d in range(8, 16) if d < 15}


def call(root: Path, *args: str, given: str = ""):
    return CliRunner().invoke(main, [*args, "--project", str(root)], input=given)


@pytest.fixture
def asked_people(tmp_path):
    """Three answers, one of them wrong, that people are to judge; two have the same content."""
    project = project_in(tmp_path, watch=f'{ALL_DRAWN}ask = "person"')
    with open_store(tmp_path) as store:
        release = release_in(store)
        live(store, [row("a", "login", "billing"), row("b", text="twice about delivery", truth="delivery"), row("c", text="twice about delivery", truth="delivery")])
        audit_pass(store, project, release, now=NOON)
    return tmp_path, project


def test_people_judge_live_answers_blind_and_their_words_settle_the_audits(asked_people) -> None:
    """The terminal shows the message alone; one word settles every audit of the same content."""
    root, project = asked_people
    done = call(root, "review", "--queue", "audit", given="login\ndelivery\n" if _first(root) == "a" else "delivery\nlogin\n")
    assert done.exit_code == 0, done.output
    assert "[1/2]" in done.output
    assert "next `overproof watch`" in done.output
    shown = [line for line in done.output.splitlines() if line.startswith("[")]
    assert not any("student" in line or "billing" in line for line in shown)
    with open_store(root) as store:
        release = store.releases.get("r1")
        found = settle(store, project, release, NOON)
        assert (found.labelled, found.due) == (3, 0)
        assert {a.request_id: (a.wrong, a.source) for a in store.watching.audits("r1")} == {
            "a": (True, "person"), "b": (False, "person"), "c": (False, "person"),
        }  # fmt: skip
        audit_pass(store, project, release, now=NOON)
        assert day_counts(store, signal="error") == [(DAY, 3, 3, 0, 1)]
        assert day_counts(store) == []
        assert store.reviews.live().rows == (), "they are no words on rows that a run has drawn"


def _first(root):
    from overproof.desk import open_live_desk
    from overproof.project import load_project

    with open_store(root) as store:
        return open_live_desk(store, load_project(root)).queue("audit", "live", "Dana Ruiz")[0].request_id


def test_people_who_differ_leave_an_audit_due_until_somebody_decides(asked_people) -> None:
    """A conflict is no word; the adjudication is."""
    root, project = asked_people
    for name, word in (("Ana", "login"), ("Bo", "billing")):
        call(root, "review", "--rows", "live", "--reviewer", name, given="".join(f"{word}\n" for _ in range(2)))
    with open_store(root) as store:
        assert settle(store, project, store.releases.get("r1"), NOON).labelled == 0
    done = call(root, "review", "--adjudicate", "--reviewer", "Dana", given="delivery\ndelivery\n")
    assert done.exit_code == 0, done.output
    with open_store(root) as store:
        assert settle(store, project, store.releases.get("r1"), NOON).labelled == 3


def test_live_answers_go_out_as_a_sheet_and_come_back(asked_people) -> None:
    """The sheet names no answer of the student; its rows are known again without a word about whose they are."""
    root, project = asked_people
    assert call(root, "review", "--export", str(root / "s.csv")).exit_code == 0
    rows = list(csv.DictReader(io.StringIO((root / "s.csv").read_text(encoding="utf-8-sig"), newline="")))
    assert len(rows) == 2
    assert set(rows[0]) == {"row", "text", "label", "reviewer", "seconds", "queue", "digest"}
    for one in rows:
        one["label"] = one["text"].rsplit(" ", 1)[-1]
    with (root / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = call(root, "review", "--import", str(root / "t.csv"))
    assert done.exit_code == 0, done.output
    with open_store(root) as store:
        assert settle(store, project, store.releases.get("r1"), NOON).labelled == 3


def test_where_both_are_asked_people_get_a_share_with_its_own_chance(store, tmp_path, teacher) -> None:
    """The person's audit of a request carries the chance of both draws; each source has its own signal."""
    project = project_in(tmp_path, teacher.port, watch=f'{ALL_DRAWN}ask = "both"\nperson_share = 0.5')
    release = release_in(store)
    live(store, [row(f"a{i}") for i in range(60)])
    audit_pass(store, project, release, now=NOON)
    people = [a for a in store.watching.audits("r1") if a.source == "person"]
    assert 15 < len(people) < 45
    assert {a.pi for a in people} == {0.5}
    assert {a.state for a in people} == {"due"}
    assert day_counts(store) == [(DAY, 60, 60, 0, 0)]
    assert day_counts(store, signal="error") == [(DAY, 60, len(people), len(people), 0)]
