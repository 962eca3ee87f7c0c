"""A project whose release answers live requests, and a teacher on loopback that knows the truth."""

import json
from datetime import UTC, date, datetime, timedelta

from tests.serve.packing import gated
from tests.watch.worlds import terms

from overproof.data import Completion, Request, Served, TrafficRecord
from overproof.project import load_project

LABELS = ("billing", "delivery", "login")
DAY = date(2026, 11, 3)
NOON = datetime(2026, 11, 4, 12, tzinfo=UTC)
"""Of the day after, so that `DAY` is closed."""
MODEL = "big-teacher-2026-01-01"
FILE = """
[task]
name = "routing"
input = ["text"]
output = {{ classes = {labels} }}
prompt = "prompt.md"
[owner]
name = "Dana Ruiz"
email = "dana@northlane.example"
[teacher]
use = "openai.v1"
base_url = "http://127.0.0.1:{port}/v1"
provider = "example"
model = "big-teacher-2026-01-01"
revision = "2026-01-01"
terms = "terms.toml"
budget_usd = 10.0
price_in_usd_per_million = 10.0
price_out_usd_per_million = 40.0
{teacher}
[teacher.options]
allow_private = true
[[student]]
use = "linear.v1"
[bars]
fidelity = 0.9
[[slice]]
name = "paying"
where = {{ tier = "plus" }}
critical = true
[watch]
{watch}
"""

def truth_of(text):
    """The last word of a message says what it is about."""
    return text.rsplit(" ", 1)[-1]


def project_in(folder, port=9, *, watch="", teacher=""):
    (folder / "prompt.md").write_text("Answer with one label.")
    address = f"http://127.0.0.1:{port}/v1"
    (folder / "terms.toml").write_text(terms(address, model="big-teacher-2026-01-01"))
    (folder / "overproof.toml").write_text(FILE.format(labels=json.dumps(LABELS), port=port, watch=watch, teacher=teacher))
    return load_project(folder)


def release_in(store, name="r1"):
    """A release with a critical slice, one for the rest and one that stays with the teacher."""
    folder = store.root / f"made-{name}"
    folder.mkdir()
    (folder / "weights").write_text(name)
    return gated(store, folder, {"paying": 0.5, "french": None, "other": 0.5}, name=name)


def row(name, truth="login", said=None, *, day=DAY, slice_name="other", sure=0.95, text=None, release="r1", **how):
    """A message and what the student said to it."""
    said = truth if said is None else said
    at = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=9)
    served = {
        "route": "student", "reason": "confident", "stage": "full", "endpoint": "/v1/classify", "status": 200, "latency_s": 0.01, "overhead_s": 0.0,
        "task": "routing", "release": release, "slice": slice_name, "guess": said, "confidence": sure, "kept": True, **how,
    }  # fmt: skip
    return TrafficRecord(
        request=Request(id=name, fields={"text": text or f"message {name} about {truth}"}, at=at.isoformat()),
        completion=Completion(text=said, value=said, model="student"), served=Served(**served), source="gateway",
    )  # fmt: skip


def live(store, rows):
    store.traffic.append(rows, "gateway")
