"""A refresh on a real store: few new labels, the challenger before the gate, and what is left behind."""

from datetime import UTC, datetime

import pytest

from overproof.cli import main
from overproof.cli.watch import mend
from overproof.data import BY_STUDENT, Completion, Request, Served, TrafficRecord, Trigger
from overproof.errors import DataError
from overproof.evidence import Refusal, Release
from overproof.pipeline import load_run
from overproof.project import load_project
from overproof.refresh import preview, refresh
from overproof.runs import runs_of
from overproof.store.project_store import open_store

MODEL = "recorded-teacher-2026-01-01"
NOW = datetime(2026, 4, 1, tzinfo=UTC)
WIDE = ("watch.refresh_share=0.33", "watch.challenger_margin=0.1", "watch.challenger_slice_margin=0.2")


def serve_more(root, make, count=300):
    """New traffic as the gateway logs it: one request in four goes to the teacher, the student answers the others."""
    with open_store(root) as store:
        serving = store.releases.latest()
        store.releases.record(serving, stage="full", by="test")
        release = serving.id
        records = []
        for i, found in enumerate(make.rows(count, seed=3)):
            passed_on = i % 4 == 0
            how = Served(
                route="teacher" if passed_on else "student", reason="below_threshold" if passed_on else "confident", stage="full", status=200,
                endpoint="/v1/chat/completions", latency_s=0.1, overhead_s=0.0, task="easy", release=release,
            )  # fmt: skip
            answer = Completion(text=found["output"], value=None, model=MODEL, cost_usd=0.002, reason=None if passed_on else BY_STUDENT)
            request = Request(id=f"n{i}", fields={"text": found["text"]}, at=f"2026-03-{1 + i % 27:02d}T12:00:{i % 60:02d}Z", attributes={"tier": found["tier"]})
            # a recorded teacher replays the log: what it would say of rows that the student answered stands there too
            records.append(TrafficRecord(request=request, completion=answer if passed_on else Completion(text=found["output"], value=None, model=MODEL),
                                         gold=found["truth"], source="gateway", served=how))  # fmt: skip
        store.traffic.append(records, "gateway")
    return release


@pytest.fixture(scope="module")
def mended(maker, template, tmp_path_factory):
    """A project after a refresh under wide margins, for a trigger that an audit gave."""
    import shutil

    root = shutil.copytree(template / "gate", tmp_path_factory.mktemp("refreshed") / "easy")
    champion = serve_more(root, maker)
    with open_store(root) as store:
        project = load_project(root, overrides=WIDE)
        trigger = Trigger(id="t1", task="easy", occasion="drift", act="re-distil", at="2026-03-30T00:00:00Z", why="the mix moved", release_id=champion)
        assert store.watching.open_trigger(trigger, at=NOW.timestamp())
        planned = preview(store, project, now=NOW, why="t1")
        before = len(list(store.decisions.read()))
        runs = len(runs_of(store))
        assert (before, runs) == (len(list(store.decisions.read())), 1)
        done = refresh(store, project, now=NOW, why="t1")
        values = {name: one.value for name, one in done.run.artifacts.items()}
        page = done.run.dossier_path.read_text(encoding="utf-8")
    return root, champion, planned, done, values, page


def test_a_challenger_that_holds_up_is_left_as_a_candidate(mended):
    """The champion goes on; the trigger is dealt with, and the log of decisions says what was done."""
    root, champion, _, done, _, _ = mended
    assert isinstance(done.run.verdict, Release), [f for f in done.run.verdict.findings if f.outcome != "pass"]
    assert done.challenge.passed
    assert [f.outcome for f in done.run.verdict.findings if f.id == "C01"] == ["pass"]
    with open_store(root) as store:
        assert [e.stage for e in store.releases.history()] == ["candidate", "full", "candidate"]
        assert store.releases.latest().id == done.release.id != champion
        (trigger,) = store.watching.triggers("easy", open_only=False)
        assert (trigger.state, done.release.id in trigger.outcome) == ("done", True)
        (entry,) = [d for d in store.decisions.read() if d.kind == "refresh"]
        assert (entry.subject, entry.body["release"], entry.body["asked"]) == (champion, done.release.id, done.plan.asked)
        assert load_run(store).verdict.id == done.release.id


def test_only_what_changed_is_labelled(mended):
    """All rows of the release and all answers to callers are there; the dry run had said so."""
    _, _, planned, done, values, _ = mended
    assert (planned.asked, planned.reused, planned.served) == (done.plan.asked, done.plan.reused, done.plan.served)
    assert planned.following == done.plan.following
    assert done.plan.asked == 100
    assert done.plan.served > 30
    assert done.plan.reused + done.plan.asked + done.plan.served == len(values["next"].why)
    labelled = {e.request.id for e in values["labels"].train.examples}
    assert set(values["next"].served) <= labelled
    asked = {a.row.request.id: a for a in values["answers"].train}
    assert all(asked[i].completions[0].cost_usd == 0.0 for i in values["next"].served)


def test_the_same_sealed_rows_are_opened_a_second_time_with_less_to_spend(mended):
    """The release's rows and fresh ones: the ledger goes on counting, and the challenge has the share of this use."""
    _, _, _, done, values, _ = mended
    assert done.run.verdict.certificate.use_k == 2
    old = next(d for d in done.challenge.duels if (d.rows, d.slice) == ("sealed", "all"))
    new = next(d for d in done.challenge.duels if (d.rows, d.slice) == ("fresh", "all"))
    assert (old.delta, new.delta) == (done.run.verdict.certificate.delta_spent, 0.05)
    assert old.delta < 0.01
    assert new.n == len(values["next"].fresh) == 40


def test_the_dossier_shows_before_and_after(mended):
    """Per slice, with the intervals and what had to be shown."""
    _, champion, _, _, _, page = mended
    assert "Against the serving release" in page
    assert f"Before: release {champion}" in page
    assert "train: escalated" in page


def test_a_repeated_refresh_asks_nothing_and_decides_nothing_anew(mended):
    """Every step is found again."""
    root, _, _, done, _, _ = mended
    with open_store(root) as store:
        again = refresh(store, load_project(root, overrides=WIDE), now=NOW, why="t1")
        assert not [e.step for e in again.run.events if e.action == "run"]
        assert again.run.run_id == done.run.run_id


def test_too_few_rows_refuse_the_challenger(ran, make, capsys):
    """Under tight margins nothing is shown to hold up: a refusal with the table, no candidate, and the trigger stays open."""
    champion = serve_more(ran, make)
    args = ["--project", str(ran), "--set", "watch.refresh_share=0.33", "--set", "watch.challenger_margin=0.001", "--why", "somebody asked"]
    with pytest.raises(SystemExit) as code:
        main(["refresh", "--dry-run", *args])
    assert code.value.code == 0
    assert "would be asked about 100" in " ".join(capsys.readouterr().out.split())
    with open_store(ran) as store:
        assert len(runs_of(store)) == 1  # a dry run leaves nothing
    with pytest.raises(SystemExit) as code:
        main(["refresh", *args])
    out = capsys.readouterr().out
    assert code.value.code == 1
    assert "C01" in out
    assert "not enough data" in out
    with open_store(ran) as store:
        assert {e.release_id for e in store.releases.history()} == {champion}
        found = load_run(store).verdict
        assert isinstance(found, Refusal)
        assert {f.id for f in found.findings if f.outcome != "pass"} == {"C01"}


def test_without_a_release_it_says_so(fitted):
    """There is nothing that a challenger could be held against."""
    with open_store(fitted) as store, pytest.raises(DataError, match="no release to refresh"):
        refresh(store, load_project(fitted), now=NOW)


def test_without_new_traffic_it_says_so(ran):
    """The release has seen all that there is."""
    with open_store(ran) as store, pytest.raises(DataError, match="0 requests"):
        refresh(store, load_project(ran), now=NOW)


def test_the_watch_makes_the_re_run_that_a_trigger_asks_for_once(ran, make):
    """Without new traffic it waits and the trigger stays; a refusal ends it, so that nothing is bought again each hour."""
    trigger = Trigger(id="t1", task="easy", occasion="drift", act="re-distil", at="2026-03-30T00:00:00Z", why="the mix moved", release_id="r")
    project = load_project(ran, overrides=("watch.refresh_share=0.33", "watch.challenger_margin=0.001"))
    with open_store(ran) as store:
        assert store.watching.open_trigger(trigger, at=NOW.timestamp())
    assert mend(project, ()) == []
    assert "waits" in mend(project, [trigger])[0]
    with open_store(ran) as store:
        assert [one.id for one in store.watching.triggers("easy")] == ["t1"]
    champion = serve_more(ran, make)
    (said,) = mend(project, [trigger])
    assert "refused" in said
    assert champion in said
    with open_store(ran) as store:
        assert store.watching.triggers("easy") == []
        (ended,) = store.watching.triggers("easy", open_only=False)
        assert (ended.state, ended.outcome) == ("done", said)
    assert mend(project, [ended]) == []
