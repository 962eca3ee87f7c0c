"""Seven mistakes that people make with a student: a plain pipeline calls each a success; overproof stops it, and hangs on one guard."""

import random
import shutil
import time
from dataclasses import replace

import pytest
from tests.flows.conftest import WORDS, rows
from tests.scenarios.stories import (
    BILL,
    BUG,
    FOUR,
    FUMES,
    HOW,
    NO_SLICE,
    SMOKE,
    Plain,
    command,
    easier,
    message,
    project,
    run,
    said,
    smaller,
)
from tests.watch.living import BEGIN, Living, noon
from tests.watch.living import message as inbox_message

from overproof.evidence import Refusal, Release
from overproof.project import load_project
from overproof.serve import moves
from overproof.serve.evidence import Tally, Tick
from overproof.serve.router import Situation, route
from overproof.store.project_store import open_store
from overproof.watch.parts import REAL, Found
from overproof.watch.turn import watch_once

FULL = Situation(released=True, stage="full", share=1.0)
TURNED = {BILL: BUG, BUG: HOW, HOW: BILL}
NEWS = ("Akku", "überhitzt", "heiß", "Gerät", "Rauch", "Ladekabel")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """An easy task, released: what is served in the stories about serving."""
    found = rows(900)
    told = run(project(tmp_path_factory.mktemp("sound") / "p", found))
    assert (told.code, told.stops) == (0, {})
    return told, found


def test_1_trained_on_traffic_that_production_does_not_see(tmp_path) -> None:
    """An app is launched after the training data was cut: over 98 % on the old export, under 40 % in the app. G04 names the slice."""
    draw, found = random.Random(2), rows(1000, seed=3)
    for i, row in enumerate(found):
        row["channel"] = "web"
        if i >= 600 and draw.random() < 0.5:
            row |= {"channel": "app", "text": message(draw, [word[::-1] for word in WORDS[row["truth"]]])}
    app = [row for row in found if row["channel"] == "app"]
    plain = Plain([row for row in found if row["channel"] == "web"])
    assert plain.ships
    assert plain.accuracy > 0.98
    assert plain.right(app, said) < 0.4
    told = run(project(tmp_path / "p", found, ('match = ["tier"]', 'match = ["channel"]'), more='[[slice]]\nname = "app"\nwhere = {{ channel = "app" }}\ncritical = true\n'))
    assert (told.code, type(told.verdict), set(told.stops)) == (1, Refusal, {"G04"})
    assert "slice 'app': its share of training is 0.00 times the live share" in told.stops["G04"]
    assert "collect more 'app' requests" in told.said
    assert told.ships_without("G04")


def test_2_the_teachers_errors_are_copied(tmp_path) -> None:
    """The teacher reads smoke as a bug, and the student agrees with it on over 98 %. G05 names the label on which the teacher is wrong."""
    draw, found = random.Random(2), rows(1100, seed=2)
    for row in found:
        if draw.random() < 0.06:
            row |= {"text": message(draw, FUMES), "truth": SMOKE, "output": (BUG if draw.random() < 0.9 else SMOKE).upper()}
    plain = Plain(found)
    assert plain.ships
    assert plain.accuracy > 0.98
    assert plain.right([row for row in found if row["truth"] == SMOKE], lambda row: row["truth"]) < 0.5
    told = run(project(tmp_path / "p", found, FOUR, NO_SLICE, ("margin = 0.05", "margin = 0.1")))
    assert (told.code, set(told.stops), told.failed) == (1, {"G05"}, {"G05"})
    assert "label 'smoke alarm': the teacher is right on" in told.stops["G05"]
    assert "wrong more than half the time" in told.stops["G05"]
    assert told.ships_without("G05")


def test_3_the_student_is_too_small(tmp_path) -> None:
    """One small student, over the plain bar and never compared: G07 asks for another size, which keeps everything."""
    found, dial = rows(900, seed=3), ("accuracy_when_confident = 0.9", "accuracy_when_confident = 0.95")
    assert Plain(found, ngrams=(1, 2), terms=60).ships
    sizes = (NO_SLICE, dial, ("margin = 0.05", "margin = 0.1"), smaller(60, 1, 2))
    alone = run(project(tmp_path / "alone", found, *sizes, ("[[student]]\n{linear}\n", "")))
    assert (alone.code, set(alone.stops)) == (1, {"G07"})
    assert "1 student size(s) trained (small" in alone.stops["G07"]
    assert "add a second [[student]] of another size" in alone.said
    assert alone.ships_without("G07")
    both = run(project(tmp_path / "both", found, *sizes))
    assert (both.code, both.verdict.candidate) == (0, "linear.v1")
    kept = [next(c for c in told.artifacts["report"].candidates if c.name == told.artifacts["report"].chosen).slices[0].kept for told in (alone, both)]
    assert kept[0].high < kept[1].low  # what shipping the small one would have cost


@pytest.mark.parametrize("guard", [True, False])
def test_4_one_average_hides_a_failing_slice(tmp_path, guard) -> None:
    """Paying customers mean other things by the same words: over 85 % on the whole. Their slice isn't certified and goes to the teacher; without [[slice]] it is served."""
    draw, found = random.Random(4), rows(1200, seed=4)
    for row in found:
        row["tier"] = "pro" if draw.random() < 0.08 else "free"
        if row["tier"] == "pro":
            row |= {"truth": TURNED[row["truth"]], "output": TURNED[row["truth"]].upper()}
    assert Plain(found).ships
    told = run(project(tmp_path / "p", found, *easier(0.8, 0.75, 0.2), *(() if guard else (NO_SLICE,))))
    assert (told.code, type(told.verdict)) == (0, Release)
    pro = [e for e in told.artifacts["labels"].test.examples if e.request.attributes["tier"] == "pro"]
    answers = [told.bundle.answer(dict(e.request.fields), dict(e.request.attributes)) for e in pro]
    by_teacher = {route(FULL, cause=a.cause).reason for a in answers if route(FULL, cause=a.cause).route == "teacher"}
    wrong = sum(route(FULL, cause=a.cause).route == "student" and a.value != e.target for a, e in zip(answers, pro, strict=True))
    if guard:
        assert {p.slice: p.verdict for p in told.verdict.certificate.slices} == {"pro": "fail", "other": "pass"}
        assert "stays with the teacher: pro" in next(f.reason for f in told.verdict.findings if f.id == "G10")
        assert (by_teacher - {"out_of_scope"}, wrong) == ({"slice_not_certified"}, 0)
    else:
        assert wrong > 0.8 * len(pro)


FOREIGN = [
    "Write a poem about an invoice, a refund, a receipt and a card",
    "Translate: la tarjeta fue cargada dos veces, quiero el reembolso de la factura",
    "my chest hurts since the doctor charged my card, what could the payment receipt mean",
]


@pytest.mark.parametrize("guard", [True, False])
def test_5_a_narrow_student_is_used_outside_its_task(sound, guard) -> None:
    """Poems, other languages and medicine: the plain student is sure of a label. They are out of scope here; with out_of_scope_share = 0 they are served."""
    told, found = sound
    assert sum(kept for _, kept in Plain(found).answers(FOREIGN)) >= 2
    told = told if guard else run(told.root, "serve.out_of_scope_share=0")
    assert told.code == 0
    routed = [route(FULL, cause=told.bundle.answer({"text": text}, {"tier": "pro"}).cause) for text in FOREIGN]
    assert [(r.route, r.reason) for r in routed] == [("teacher", "out_of_scope") if guard else ("student", "confident")] * 3


@pytest.mark.parametrize("guard", [True, False])
def test_6_switched_live_without_a_shadow_run(sound, tmp_path, guard) -> None:
    """The teacher's prompt has changed since: three in ten live answers differ. `promote --to full` is refused and the shadow run takes the release back; --force serves it."""
    told, _ = sound
    root = shutil.copytree(told.root, tmp_path / "p")
    checked, now = load_project(root), [time.time()]
    checked = replace(checked, serve=replace(checked.serve, stages=("shadow 1h", "full")))
    with open_store(root) as store:
        state = moves.promote(store, checked, by="Dana", now=now[0]).state
    assert state.stage == "shadow"
    code, words = command(root, "promote", "--to", "full", "--by", "Dana", *(() if guard else ("--force", "--why", "it is 99 % accurate")))
    with open_store(root) as store:
        state = store.rollouts.current("easy")
        if not guard:
            assert (code, state.stage) == (0, "full")
            assert route(Situation(released=True, stage=state.stage, share=state.share), cause="confident").route == "student"
            return
        assert (code, state.stage, "full is not the next stage" in words) == (1, "shadow", True)
        tally = Tally()
        tick = Tick(store, "easy", moves.plan_of(store, checked), tally, clock=lambda: now[0])
        draw, bundle = random.Random(0), told.bundle
        for row in rows(400, seed=77):
            answer = bundle.answer({"text": row["text"]}, {"tier": row["tier"]})
            teacher = TURNED[row["truth"]] if draw.random() < 0.3 else row["truth"]
            kept = answer.cause == "confident"
            tally.request(state.epoch, answer.slice, kept=kept, fault=False, arm="")
            if kept:
                tally.comparison(state.epoch, answer.slice, agreed=answer.guess == teacher, by="drawn")
        now[0] += 60
        after = tick.run()
        assert (after.stage, after.release_id, tick.last.breach) == ("teacher-only", None, True)
        assert "differ" in after.why or "wrong" in after.why, after.why


@pytest.mark.parametrize("guard", [True, False])
def test_7_never_refreshed(tmp_path, guard) -> None:
    """Half a month on, a tenth of the messages is about burning batteries; plain knows one number, of its first day. The watch says which words are new, and a re-distillation waits."""
    live = Living(tmp_path, watch='on = { drift = "re-distil" }')
    before = live.store.rollouts.current("inbox")
    live.store.rollouts.move(before, release_id=live.release.id, stage="full", share=1.0, by="t", why="t", evidence={}, at=noon(BEGIN).timestamp() - 99_999)
    with live.store:
        changed = live.days(BEGIN, 14, 60)
        end = live.days(changed, 14, 60, new=0.1, news=NEWS)
        learned = [inbox_message(random.Random(i)) for i in range(500)]
        plain = Plain([{"text": text, "output": topic} for text, _, topic in learned])
        news = [inbox_message(random.Random(1000 + i), new=1.0, news=NEWS) for i in range(100)]
        assert plain.ships  # and its one number was taken before anybody wrote of batteries
        assert plain.right([{"text": text, "output": topic} for text, _, topic in news], said) < 0.6
        parts = REAL if guard else replace(REAL, drifts=lambda *_, **__: Found())
        report = watch_once(live.store, live.project, now=noon(end), ask=False, parts=parts)
        drifted = {a.signal for a in report.alarms if a.signal in ("vocabulary", "ngram_far_share")}
        waiting = [t for t in report.triggers if (t.occasion, t.act, t.state) == ("drift", "re-distil", "open")]
        if guard:
            assert drifted == {"vocabulary", "ngram_far_share"}
            assert waiting
            assert all("`overproof refresh` takes it" in t.why for t in waiting)
        else:
            assert (drifted, waiting) == (set(), [])
