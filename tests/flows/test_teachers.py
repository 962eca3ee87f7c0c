"""The road with several teachers, with batches, and with canary prompts: real servers on loopback, the real ledger."""

import json
from pathlib import Path

import pytest

from overproof.errors import PinMismatch, TermsError
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.testing import FaultTeacher
from overproof.testing_batch import BatchFaults, BatchProvider

TEACHER = "big-teacher-2026-01-01"
STEMS = {
    "billing 💶": ["invoice", "charged", "refund", "card", "payment", "receipt"],
    "bug report": ["crash", "error", "freezes", "broken", "stacktrace", "bug"],
    "how to": ["configure", "tutorial", "steps", "guide", "setup", "enable"],
}


def read(text: str) -> str:
    """The truth, read from the words' stems as the conftest writes them."""
    message = text.rsplit("\n\n", 1)[-1]
    return max(STEMS, key=lambda label: sum(message.count(stem) for stem in STEMS[label]))


def blind(word: str):
    """A reader that says "how to" wherever this word stands."""
    return lambda text: "how to" if word in text.rsplit("\n\n", 1)[-1] else read(text)


def small(make, root: Path, n: int = 120) -> Path:
    return make.project(root, make.rows(n))


def asking(root: Path, port: int, keys: str = "", more: str = "", options: str = "") -> Path:
    """The project with a server as its teacher, and terms that name it."""
    text = (root / "overproof.toml").read_text().replace("recorded-teacher-2026-01-01", TEACHER)
    text = text.replace('use = "recorded.v1"', f'use = "openai.v1"\nbase_url = "http://127.0.0.1:{port}/v1"')
    text = text.replace('terms = "terms.toml"', f'terms = "terms.toml"\nbudget_usd = 10.0\nprice_in_usd_per_million = 1.0\n'
                        f"price_out_usd_per_million = 4.0\n{keys}\n[teacher.options]\nallow_private = true\n{options}")  # fmt: skip
    (root / "overproof.toml").write_text(text + more)
    terms = (root / "terms.toml").read_text().replace("recorded-teacher-2026-01-01", TEACHER)
    (root / "terms.toml").write_text(terms.replace('base_url = ""', f'base_url = "http://127.0.0.1:{port}/v1"'))
    return root


def member(root: Path, name: str, port: int, *, cleared: bool = True, arbiter: bool = False) -> str:
    """A [[committee]] table with a model and an attestation of its own."""
    model = f"{name}-2026-01-01"
    terms = (root / "terms.toml").read_text().replace("recorded-teacher-2026-01-01", model)
    if cleared:
        (root / f"{name}.toml").write_text(terms.replace('base_url = ""', f'base_url = "http://127.0.0.1:{port}/v1"'))
    return (
        f'\n[[committee]]\nuse = "openai.v1"\nname = "{name}"\nmodel = "{model}"\nrevision = "2026-01-01"\n'
        f'provider = "example"\nbase_url = "http://127.0.0.1:{port}/v1"\nterms = "{name}.toml"\narbiter = {str(arbiter).lower()}\n'
        "price_in_usd_per_million = 1.0\nprice_out_usd_per_million = 4.0\noptions = { allow_private = true }\n"
    )


def run(root: Path, to: str | None = "filter"):
    with open_store(root) as store:
        result = distil(store, load_project(root), to=to)
        return result, {name: artifact.value for name, artifact in result.artifacts.items()}, store.ledger.counts()


def rows_of(answers):
    return [a for split in ("train", "calibration", "test") for a in getattr(answers, split)]


def test_a_committee_decides_by_agreement_and_asks_its_arbiter_about_the_rest(make, tmp_path) -> None:
    """Three voters that err on different words, and an arbiter that knows: every disputed row gets the arbiter's word."""
    root = small(make, tmp_path / "p", 400)
    with FaultTeacher(blind("invoice"), model=TEACHER) as first, FaultTeacher(blind("crash"), model="two-2026-01-01") as two, \
            FaultTeacher(blind("refund"), model="three-2026-01-01") as three, FaultTeacher(read, model="judge-2026-01-01") as judge:  # fmt: skip
        more = member(root, "two", two.port) + member(root, "three", three.port) + member(root, "judge", judge.port, arbiter=True)
        result, got, counts = run(asking(root, first.port, "repeat = 0", more), to=None)
        said, panel = rows_of(got["answers"]), got["answers"].committee
        disputed = sum(len({f(a.row.request.text) for f in (blind("invoice"), blind("crash"), blind("refund"))}) > 1 for a in said)
        assert 0 < disputed < len(said)
        assert (judge.stats.wire, panel.arbitrated, panel.unanimous) == (disputed, disputed, len(said) - disputed)
        assert all(a.decided == read(a.row.request.text) for a in said if len(a.completions) == 4)
        assert [(m.name, m.arbiter, m.answered) for m in panel.members] == [
            (TEACHER, False, len(said)), ("two", False, len(said)), ("three", False, len(said)), ("judge", True, disputed),
        ]  # fmt: skip
        assert counts.labels == sum(s.stats.billed for s in (first, two, three, judge))
        assert counts.spent_usd == pytest.approx(sum(m.spent_usd for m in panel.members))
        findings = {f.id: f.outcome for f in result.verdict.findings}
        assert (findings["G01"], findings["G02"]) == ("pass", "pass")
        notes = "\n".join(got["summary"].notes)
        assert f"{disputed:,} decided by an arbiter" in notes
        assert "decided by an arbiter" in result.dossier_path.read_text()


def test_every_member_of_a_committee_needs_a_clearance_before_anybody_is_asked(make, tmp_path) -> None:
    """One attestation is missing: the run stops, and no server has heard a word."""
    root = small(make, tmp_path / "p")
    with FaultTeacher(read, model=TEACHER) as first, FaultTeacher(read, model="two-2026-01-01") as two:
        more = member(root, "two", two.port) + member(root, "three", two.port, cleared=False)
        asking(root, first.port, "", more)
        with pytest.raises(TermsError, match=r"three\.toml"):
            run(root)
        (root / "three.toml").write_text((root / "two.toml").read_text())  # somebody else's attestation is none
        with pytest.raises(TermsError, match=r"three\.toml"):
            run(root)
        assert (first.stats.wire, two.stats.wire) == (0, 0)


def test_ties_of_two_voters_are_shown_and_fall_to_the_teacher(make, tmp_path) -> None:
    """Two that disagree and no arbiter: the first one's label stands, and the summary counts how often."""
    root = small(make, tmp_path / "p")
    with FaultTeacher(read, model=TEACHER) as first, FaultTeacher(blind("crash"), model="two-2026-01-01") as two:
        _, got, _ = run(asking(root, first.port, "repeat = 0", member(root, "two", two.port)))
        said = rows_of(got["answers"])
        ties = sum(read(a.row.request.text) != blind("crash")(a.row.request.text) for a in said)
        assert ties > 0
        assert got["answers"].committee.tied == ties
        assert all(a.decided == read(a.row.request.text) for a in said)
        assert f"{ties:,} ties" in "\n".join(got["summary"].notes)


def test_a_batch_gives_the_labels_of_a_live_teacher_at_half_the_price(make, tmp_path) -> None:
    """The same rows, some expired in the first batch; each label is paid once and a second run asks nobody."""
    labels, spent = {}, {}
    for mode in ("live", "batch"):
        root = small(make, tmp_path / mode)
        batch = BatchFaults(polls=1, rates={"expired": 0.2}, once=True)
        with BatchProvider(read, model=TEACHER, batch=batch) as server:
            asking(root, server.port, f'mode = "{mode}"\nrepeat = 10')
            _, got, counts = run(root)
            said = rows_of(got["answers"])
            labels[mode] = {a.row.request.id: a.completions[0].value for a in said}
            spent[mode] = got["answers"].spent_usd / (len(said) + 10)
            assert counts.labels == len(said) + 10
            assert counts.held_usd == 0
            assert len(got["answers"].asking.repeats) == 10
            before = (server.stats.wire, server.batch_stats())
            run(root)
            assert (server.stats.wire, server.batch_stats()) == before
            if mode == "batch":
                assert server.stats.fates.get("ok", 0) == 0
                assert before[1]["most_answered"] <= 2  # a row that is asked twice is two answers of one body
    assert labels["batch"] == labels["live"]
    assert spent["batch"] < 0.75 * spent["live"]


def test_a_teacher_that_changed_stops_the_next_labelling_run(make, tmp_path) -> None:
    """Canary prompts ask again when there is something to label; by policy a change stops the run or is told."""
    root = small(make, tmp_path / "p")
    (root / "canaries.jsonl").write_text("".join(json.dumps({"text": f"{w} canary {i}"}) + "\n" for i in range(10) for w in ("crash", "invoice", "guide")))
    answer = {"now": read}

    def now(text: str) -> str:
        return answer["now"](text)

    with FaultTeacher(now, model=TEACHER) as server:
        asking(root, server.port, 'repeat = 0\ncanaries = "canaries.jsonl"')
        _, got, _ = run(root)
        assert got["answers"].asking.canaries.n == 0  # the reference
        text = (root / "overproof.toml").read_text()
        (root / "overproof.toml").write_text(text.replace("repeat = 0", "repeat = 5"))
        _, got, _ = run(root)
        assert (got["answers"].asking.canaries.differ, got["answers"].asking.canaries.alarm) == (0, False)
        answer["now"] = lambda text: "how to"
        (root / "overproof.toml").write_text(text.replace("repeat = 0", "repeat = 8"))
        before = server.stats.wire
        with pytest.raises(PinMismatch, match="canary"):
            run(root)
        assert server.stats.wire - before == 30  # the canary prompts and no label
        (root / "overproof.toml").write_text(text.replace("repeat = 0", 'repeat = 8\non_canary = "report"'))
        _, got, _ = run(root)
        assert got["answers"].asking.canaries.alarm
        assert "the teacher changed" in "\n".join(got["summary"].notes)


def test_another_fingerprint_stops_the_run_or_is_told(make, tmp_path) -> None:
    """The system behind the model changes between two runs: "report" counts both, "stop" refuses the first such label."""
    for policy in ("report", "stop"):
        root = small(make, tmp_path / policy, 60)
        with BatchProvider(read, model=TEACHER) as server:
            server.system = "fp_old"
            asking(root, server.port, f'repeat = 0\nconcurrency = 1\non_fingerprint = "{policy}"')
            _, got, _ = run(root)
            n = len(rows_of(got["answers"]))
            assert got["answers"].asking.fingerprints == {"fp_old": n}
            server.system = "fp_new"
            text = (root / "overproof.toml").read_text()
            (root / "overproof.toml").write_text(text.replace("repeat = 0", "repeat = 0\nsamples = 2"))
            if policy == "stop":
                billed = server.stats.billed
                with pytest.raises(PinMismatch, match="fp_new"):
                    run(root)
                assert server.stats.billed == billed + 1
            else:
                _, got, _ = run(root)
                assert got["answers"].asking.fingerprints == {"fp_new": n, "fp_old": n}
                assert "more than one fingerprint" in "\n".join(got["summary"].notes)


def test_extra_samples_go_where_the_teacher_is_unsure_or_a_slice_asks(make, tmp_path) -> None:
    """Rows below `extra_below` get `hard_samples`, rows of a slice in `samples_by` as many as it says; the rest gets one."""
    root = small(make, tmp_path / "p")
    with BatchProvider(read, model=TEACHER) as server:
        server.chance = lambda text: 0.4 if "refund" in text.rsplit("\n\n", 1)[-1] else 0.99
        keys = "repeat = 0\nhard_samples = 5\nextra_below = 0.6\nsamples_by = { pro = 2 }"
        _, got, counts = run(asking(root, server.port, keys, options="logprobs = true"))
        said, how = rows_of(got["answers"]), got["answers"].asking
        wanted = {
            a.row.request.id: 5 if "refund" in a.row.request.text else 2 if a.row.request.attributes["tier"] == "pro" else 1
            for a in said
        }
        assert set(wanted.values()) == {1, 2, 5}
        assert {a.row.request.id: len(a.completions) for a in said} == wanted
        assert counts.labels == sum(wanted.values())
        unsure = sum(n == 5 for n in wanted.values())
        assert (how.extra_rows, how.extra_changed, how.extra_reasons) == (unsure, 0, {"the teacher was unsure": unsure})
        assert f"{how.extra_bought:,} extra samples were taken on {unsure:,} rows" in "\n".join(got["summary"].notes)
