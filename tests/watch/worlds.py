"""A project with a server as its teacher, a release that serves it, and a clock of its own."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.serve.packing import gated

from overproof.data import Completion, Request, Served, TrafficRecord
from overproof.project import load_project
from overproof.steps.terms import read_entry

START = datetime(2031, 3, 1, 9, tzinfo=UTC)  # later than any wall clock that writes decisions, so that the tests' time counts
MODEL = "big-2026-01-01"
LABELS = ("billing", "bug", "safety")
FILE = """
[task]
name = "routing"
input = ["text"]
output = {{ classes = ["billing", "bug", "safety"] }}
prompt = "prompt.md"
[owner]
name = "Dana Ruiz"
email = "dana.ruiz@example.com"
deputy = "Imre Sandoval"
review_every = "90d"
[teacher]
use = "openai.v1"
provider = "example"
model = "big-2026-01-01"
revision = "2026-01-01"
base_url = "{url}"
terms = "terms.toml"
budget_usd = 10.0
price_in_usd_per_million = 1.0
price_out_usd_per_million = 1.0
{teacher}
[teacher.options]
allow_private = true
[traffic]
source = "log"
[bars]
fidelity = 0.9
[[slice]]
name = "vip"
where = {{ tier = "plus" }}
critical = true
[[student]]
use = "linear.v1"
[serve]
accuracy_when_confident = 0.95
stages = ["shadow 1h", "canary 20% 1h", "full"]
promote = "by-evidence"
[watch]
{watch}
"""
TERMS = """
id = "easy-1"
registry_id = "own-answers"
registry_digest = "{digest}"
role = "teacher"
channel = "own"
contracting_party = "example"
account_or_contract = "a test"
statement = "The answers are made by the test itself from a list of words; nobody's terms apply to them."
attested_on = 2026-01-02
{expires}
[model]
provider = "example"
base_url = "{url}"
model = "{model}"
revision = "2026-01-01"
{ends}
[use]
student_kind = "classifier"
distribution = "internal"
purpose = "test the watch"
[conditions]
written-by-a-provider-model = false
[attested_by]
name = "Dana Ruiz"
role = "tester"
email = "dana.ruiz@example.com"
[[document]]
key = "authorship"
url = ""
read_on = 2026-01-02
"""


def terms(url, *, model="big-2026-01-01", expires="", ends=""):
    """A terms record for a teacher on loopback whose answers a test makes itself."""
    return TERMS.format(digest=read_entry("own-answers").digest, url=url, model=model, expires=expires, ends=ends)


def after(days: float) -> datetime:
    return START + timedelta(days=days)


def write_terms(root: Path, *, url: str = "http://127.0.0.1:9/v1", expires: str = "", ends: str = "") -> None:
    line = f"expires = {expires}" if expires else ""
    (root / "terms.toml").write_text(terms(url, expires=line, ends=ends))


def write_project(root: Path, *, url: str = "http://127.0.0.1:9/v1", watch: str = "", teacher: str = "", canaries: int = 0):
    """The project file and what lies beside it; loaded."""
    if canaries:
        (root / "canaries.jsonl").write_text("\n".join(json.dumps({"text": f"canary {i}"}) for i in range(canaries)))
        teacher += '\ncanaries = "canaries.jsonl"'
    (root / "prompt.md").write_text("Answer with one label.")
    (root / "overproof.toml").write_text(FILE.format(url=url, watch=watch, teacher=teacher))
    write_terms(root, url=url)
    return load_project(root)


def released(store, name="r1", *, due="2999-01-01"):
    """A candidate as the gate makes one, with two certified slices."""
    folder = store.root / f"made-{name}"
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_text(name)
    return gated(store, folder, {"vip": 0.5, "other": 0.5}, name=name, ends="2999-01-01", due=due)


def serve(store, release, *, stage="full", share=1.0):
    """Put a release where it serves, as a move does."""
    state = store.rollouts.current("routing")
    moved = store.rollouts.move(state, release_id=release.id, stage=stage, share=share, by="Dana", why="test", evidence={}, at=START.timestamp())
    assert moved is not None
    return moved


def live(number: int, *, release="r1", guess="bug", said="bug", slice_name="other", route="teacher", model=MODEL, mark=None, at=START):
    """A row as the gateway leaves it."""
    served = Served(route=route, reason="stage", stage="full", endpoint="/v1/chat/completions", status=200, latency_s=0.1, overhead_s=0.0,
                    task="routing", release=release, slice=slice_name, guess=guess, confidence=0.9)  # fmt: skip
    request = Request(id=f"live-{number}", fields={"text": f"message {number}"}, at=at.isoformat(), attributes={"tier": "plus"} if slice_name == "vip" else {})
    return TrafficRecord(request=request, completion=Completion(text=said, value=None, model=model, fingerprint=mark), served=served)
