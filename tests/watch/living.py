"""A released student that serves: a small shop's inbox with a reference, and live rows as the gateway writes them."""

import json
import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from tests.serve.packing import gated

from overproof.data import Completion, Example, PromptRow, PromptSet, Request, Served, TrafficRecord, TrainSet
from overproof.evidence import Calibrator, Confidence
from overproof.outputs import Classes
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.students.bundle import MANIFEST, STUDENT, Bundle, load_bundle, manifest_of
from overproof.students.card import RELEASE, Card, Threshold, write_card
from overproof.students.linear import LinearStudent
from overproof.task import Slice

TOPICS = {
    "delivery": ["parcel", "courier", "tracking", "late", "doorstep", "package", "van", "driver", "depot", "missing", "street", "knocked"],
    "billing": ["invoice", "charged", "card", "receipt", "amount", "twice", "refund", "bank", "payment", "total", "discount", "statement"],
    "login": ["password", "account", "code", "locked", "reset", "email", "signin", "browser", "session", "link", "expired", "verify"],
}
FILLER = ["please", "hello", "thanks", "today", "again", "since", "about", "with", "your", "need", "help", "could", "would", "really", "order", "week", "still", "never", "last", "time"]
GERMAN = ["bitte", "hallo", "danke", "heute", "wieder", "seit", "wegen", "brauche", "hilfe", "könnte", "bestellung", "woche", "immer", "noch", "nie", "letzte"]
LABELS = tuple(TOPICS)
SLICES = (Slice(name="english", where=(("language", ("en",)),)), Slice(name="german", where=(("language", ("de",)),)), Slice(name="other", where=()))
MIX = {"delivery": 0.5, "billing": 0.3, "login": 0.2}
PROJECT = """
[task]
name = "inbox"
input = ["text"]
prompt = "prompt.md"
output = {{ classes = {labels} }}
[owner]
name = "Dana Ruiz"
email = "dana.ruiz@example.com"
deputy = "Imre Sandoval"
[teacher]
use = "recorded.v1"
provider = "example"
model = "recorded-teacher-2026-01-01"
terms = "terms.toml"
[[student]]
use = "linear.v1"
[bars]
fidelity = 0.9
[watch]
{watch}
"""
BEGIN = date(2025, 3, 3)  # a Monday


def message(draw: random.Random, *, mix=MIX, german=0.3, new=0.0, news=()) -> tuple[str, dict, str]:
    """Text, attributes, topic. With chance `new` the text is about something else: the words of `news`."""
    topic = draw.choices(list(mix), list(mix.values()))[0]
    foreign = draw.random() < german
    words = draw.sample(GERMAN if foreign else FILLER, 5) + draw.sample(TOPICS[topic], 4)
    if draw.random() < new:
        words = draw.sample(GERMAN if foreign else FILLER, 3) + draw.sample(list(news), min(5, len(news)))
    draw.shuffle(words)
    return " ".join(words) + f" nr {draw.randrange(10**6)}", {"language": "de" if foreign else "en"}, topic


def packed(folder: Path, rows, *, least=0.5) -> Bundle:
    """A linear student of these rows, as a bundle."""
    examples = tuple(Example(request=Request(id=str(at), fields={"text": text}), target=topic) for at, (text, _, topic) in enumerate(rows))
    student = LinearStudent(labels=LABELS, char_ngrams=[3, 3])
    (folder / STUDENT).mkdir(parents=True)
    student.fit(TrainSet(examples=examples, labels=LABELS), workdir=folder / STUDENT)
    card = Card(
        task="inbox", input=("text",), output=Classes(labels=LABELS), candidate="small", use=student.kind,
        confidence=Confidence(everywhere=Calibrator(method="temperature"), scope=()),
        thresholds=tuple(Threshold(slice=one, threshold=least if one.where else None) for one in SLICES),
        label_kind="gold", plan_hash="0" * 64, expires="2099-01-01", selftest=(),
    )  # fmt: skip
    card = replace(card, selftest=Bundle(card, student).probe([text for text, _, _ in rows[:4]]))
    write_card(folder / RELEASE, card)
    (folder / MANIFEST).write_text(json.dumps(manifest_of(folder)))
    return load_bundle(folder)


class Living:
    """A store in which a release serves."""

    def __init__(self, root: Path, *, seed=0, watch="", train=400, held=600, weeks=12) -> None:
        (root / "overproof.toml").write_text(PROJECT.format(labels=json.dumps(LABELS), watch=watch))
        (root / "prompt.md").write_text("Which queue?")
        self.project, self.store = load_project(root), open_store(root)
        self.draw = random.Random(seed)
        rows = [message(self.draw) for _ in range(train + held)]
        self.bundle = packed(root / "bundle", rows[:train])
        first = BEGIN - timedelta(weeks=weeks)
        chosen = []
        for at, (text, attributes, _) in enumerate(rows):
            day = first + timedelta(days=at % (7 * weeks))
            request = Request(id=f"ref{at}", fields={"text": text}, at=f"{day}T10:00:00Z", attributes=attributes)
            chosen.append(PromptRow(request=request, weight=1.0, group=f"g{at}"))
        third = train + held // 3
        self.prompts = PromptSet(
            train=tuple(chosen[:train]), calibration=tuple(chosen[train:third]), test=tuple(chosen[third:]), funnel={}, match=(),
            distance=0.0, leaks={},
        )  # fmt: skip
        self.release = gated(self.store, root / "bundle", {one.name: 0.5 for one in SLICES}, task="inbox")
        memo = self.store.memo()
        digests = {"prompts": memo.source("prompts", self.prompts).digest, "verdict": memo.source("verdict", self.release).digest}
        self.store.decisions.append("gate", actor="Dana", subject="run1", body={"outcome": "release", "headline": "h", "digests": digests})
        self.number = 0

    def serve(self, day: date, requests, *, asked=True, session=None) -> list[str]:
        """Live rows of one day, answered by the student where it is sure enough; their ids."""
        rows, ids = [], []
        whole = [Request(id=f"live{self.number + at}", fields={"text": text}, at=f"{day}T{at % 24:02d}:{at % 60:02d}:00Z", attributes=attributes,
                         session=session) for at, (text, attributes, _) in enumerate(requests)]  # fmt: skip
        self.number += len(whole)
        for request, answer in zip(whole, self.bundle.answers(whole, today=date.min), strict=True):
            kept = answer.cause == "confident"
            served = Served(
                route="student" if kept else "teacher", reason="confident" if kept else "below_threshold", stage="full", endpoint="/v1",
                status=200, latency_s=0.1, overhead_s=0.01, task="inbox", release=self.release.id if asked else "",
                slice=answer.slice if asked else "", guess=answer.guess if asked else None, confidence=answer.confidence if asked else None,
                kept=kept and asked,
            )  # fmt: skip
            value = answer.guess or LABELS[0]
            rows.append(TrafficRecord(request=request, completion=Completion(text=value, value=value, model="m"), served=served))
            ids.append(request.id)
        report = self.store.traffic.append(rows, "gateway")
        assert report.added == len(rows)
        return ids

    def days(self, first: date, count: int, per_day: int, **how) -> date:
        """Serve a span of days; a week swings by a half. Says the day after."""
        for at in range(count):
            day = first + timedelta(days=at)
            swing = 0.6 if day.weekday() >= 5 else 1.15
            self.serve(day, [message(self.draw, **how) for _ in range(round(per_day * swing))])
        return first + timedelta(days=count)


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
