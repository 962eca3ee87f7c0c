"""A project in which everything that a page could show was written by somebody who means harm."""

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.flows.conftest import make_project, rows
from tests.web.payloads import MARKUP, PAYLOADS

from overproof.data import Completion, Request, TrafficRecord
from overproof.data.served import Served
from overproof.data.watch import Alarm, ExampleShown, Trigger
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.serve.moves import promote
from overproof.store.project_store import open_store
from overproof.store.reviews import Review

EVIL = MARKUP[1]
"""In names, where one is as good as another."""
TASK = "easy"


def poisoned(folder):
    """The project's folder, with a run, a serving release, served traffic, reviews, alarms and decisions."""
    found = rows(900)
    for at, row in enumerate(found):
        if at % 4 == 0:
            row["text"] += " " + PAYLOADS[at // 4 % len(PAYLOADS)][:400]
        row["tier"] = EVIL if row["tier"] == "pro" else "free"
    root = make_project(folder, found)
    file = root / "overproof.toml"
    text = file.read_text(encoding="utf-8")
    for old, new in {'name = "pro"': f"name = '{EVIL}'", 'tier = "pro"': f"tier = '{EVIL}'", "margin = 0.05": "margin = 0.2"}.items():
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    project = load_project(root)
    with open_store(root) as store:
        result = distil(store, project)
        release = store.releases.latest()
        now = time.time()
        assert release is not None
        name = release.id
        promote(store, project, by=EVIL, force=EVIL, now=now)
        store.traffic.append(list(_served(name, now)), source=EVIL)
        _watch(store, project.task.name, name, now)
        _reviews(store, result)
    return root


def _served(release, now):
    for at, words in enumerate(PAYLOADS * 2):
        route = "student" if at % 3 else "teacher"
        when = datetime.fromtimestamp(now - at * 600, UTC).isoformat()
        request = Request(id=f"{'<img src=x onerror=window.__ran=1>' if at == 0 else 'live'}-{at}", fields={"text": words}, at=when, attributes={"tier": EVIL})
        answer = Completion(text=EVIL, value="bug report", model=EVIL, latency_s=0.2, cost_usd=0.001)
        served = Served(
            route=route, reason="confident" if route == "student" else "below_threshold", stage="full", endpoint="/v1/chat/completions", status=200, latency_s=0.2,
            overhead_s=0.001, task=TASK, release=release, slice=EVIL, guess="how to", confidence=(at % 100) / 100, kept=route == "student", key="k",
        )  # fmt: skip
        yield TrafficRecord(request=request, completion=answer, served=served)


def _watch(store, task, release, now):
    day = datetime.fromtimestamp(now, UTC).date()
    shown = tuple(ExampleShown(request_id=EVIL, text=words, said=EVIL, truth=words) for words in PAYLOADS[:5])
    for signal in ("error", "vocabulary"):
        store.watching.raise_alarm(
            Alarm(id=f"{signal}{EVIL}", task=task, release_id=release, slice=EVIL, signal=signal, at=day.isoformat(), since=(day - timedelta(days=3)).isoformat(), kind="page",
                  value=0.3, low=0.2, high=0.4, reference=0.1, n=100, words=f"{EVIL} went up", examples=shown, part=EVIL), at=now,
        )  # fmt: skip
    store.watching.open_trigger(Trigger(id=EVIL, task=task, occasion="bar", act="hold", at=day.isoformat(), why=EVIL, release_id=release, slices=(EVIL,)), at=now)
    store.watching.hold(task, by=EVIL, why=EVIL, cause=EVIL, at=now)
    store.watching.note(EVIL, task, kind="alarm", body={"words": EVIL, "lines": [EVIL]}, channels=["log"], at=now)


def _reviews(store, result):
    known = result.artifacts["filtered"].value.train[:30] if "filtered" in result.artifacts else ()
    for at, example in enumerate(known):
        for who in (f"{EVIL} one", f"{EVIL} two"):
            label = ["billing 💶", "bug report", "how to"][(at + (who.endswith("two") and at % 4 == 0)) % 3]
            store.reviews.append([Review(digest=example.request.digest, request_id=example.request.id, label=label, reviewer=who, queue="fix", kind="review", blind=True, seconds=3.0)])


if __name__ == "__main__":  # a browser's loop runs in the process of the tests, and a run needs one of its own
    poisoned(Path(sys.argv[1]))
