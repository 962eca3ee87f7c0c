"""A project with a release that serves, in a real store."""

from datetime import UTC, datetime
from pathlib import Path

from tests.serve.packing import FRENCH, PAYING, gated, pack

from overproof.data import ALL, Alarm, ExampleShown, Reading, Trigger
from overproof.project import Project, load_project
from overproof.store.project_store import Store
from overproof.watch.notices import tell
from overproof.watch.parts import Followed, Found, Parts

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
FILE = """
[task]
name = "routing"
input = ["text"]
output = { classes = ["billing", "delivery", "login"] }
prompt = "prompt.md"
[owner]
name = "Dana Ruiz"
email = "dana@northlane.example"
[teacher]
use = "recorded.v1"
model = "big-2026-05-01"
path = "answers.jsonl"
[[student]]
use = "linear.v1"
[bars]
fidelity = 0.9
"""


def project_in(folder: Path, more: str = "") -> Project:
    (folder / "prompt.md").write_text("Answer with one label.", encoding="utf-8")
    (folder / "answers.jsonl").write_text("{}\n", encoding="utf-8")
    (folder / "overproof.toml").write_text(FILE + more, encoding="utf-8")
    return load_project(folder)


def serve_release(store: Store, folder: Path, name: str = "r1", at: datetime = NOON) -> None:
    """A release at full, as `overproof promote --force` puts it there."""
    pack(folder / name)
    gated(store, folder / name, {PAYING: 0.4, FRENCH: None}, name=name)
    before = store.rollouts.current("routing")
    store.rollouts.move(before, release_id=name, stage="full", share=1.0, by="test", why="test", evidence={}, at=at.timestamp())


def alarm(name: str = "a1", release: str = "r1", **given) -> Alarm:
    rest = {
        "id": name, "task": "routing", "release_id": release, "slice": "paying", "signal": "disagreement", "at": "2026-11-19",
        "since": "2026-11-12", "kind": "page", "value": 0.09, "low": 0.06, "high": 0.13, "reference": 0.05, "n": 310,
        "words": "Among paying customers the student errs too often.",
        "examples": (ExampleShown(request_id="q1", text="battery hot, call +49 151 23456789", said="delivery", truth="billing"),),
    }  # fmt: skip
    return Alarm(**{**rest, **given})


def trigger(name: str = "t1", **given) -> Trigger:
    rest = {"id": name, "task": "routing", "occasion": "bar", "act": "hold", "at": "2026-11-20T12:00:00+00:00", "why": "paying crossed its bar", "release_id": "r1", "alarms": ("a1",)}
    return Trigger(**{**rest, **given})


def reading(**given) -> Reading:
    rest = {"release_id": "r1", "slice": ALL, "signal": "disagreement", "day": "2026-11-19", "value": 0.03, "low": 0.02, "high": 0.05, "reference": 0.05, "n": 500, "method": "test"}
    return Reading(**{**rest, **given})


def parts(**given) -> Parts:
    """Parts that find nothing, but for those that are given."""

    def none(*_, **__) -> Found:
        return Found()

    rest = dict.fromkeys(("audits", "monitors", "drifts", "teacher", "duties", "retention"), none)
    return Parts(**{**rest, "triggers": lambda *_, **__: Followed(), "notices": tell, **given})


