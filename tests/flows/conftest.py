"""A whole project on disk: an easy task, a recorded teacher, a linear student; seconds from traffic to verdict."""

import json
import random
import shutil
from pathlib import Path

import pytest

from overproof.cli.intake import take
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.steps.terms import read_entry
from overproof.store.project_store import open_store

WORDS = {
    "billing 💶": ["invoice", "charged", "refund", "card", "payment", "receipt"],
    "bug report": ["crash", "error", "freezes", "broken", "stacktrace", "bug"],
    "how to": ["configure", "tutorial", "steps", "guide", "setup", "enable"],
}
FILLER = ["please", "the", "a", "my", "our", "today", "again", "since", "yesterday", "version", "account", "team", "screen", "phone", "order", "number"]

LINEAR = 'use = "linear.v1"\nchar_ngrams = [2, 3]'  # longer ones take a third of the time, and this task doesn't need them
PROJECT = """
[task]
name = "easy"
input = ["text"]
prompt = "prompt.md"
output = {{ classes = {labels} }}
[owner]
name = "Dana Ruiz"
email = "dana.ruiz@example.com"
deputy = "Imre Sandoval"
[traffic]
columns = {{ gold = "truth" }}
[promptset]
test_share = 0.4
calibration_share = 0.2
match = ["tier"]
[teacher]
use = "recorded.v1"
provider = "example"
model = "recorded-teacher-2026-01-01"
revision = "2026-01-01"
terms = "terms.toml"
[[student]]
{linear}
[[student]]
use = "ngram.v1"
name = "small"
[bars]
fidelity = 0.9
accuracy = 0.85
[[slice]]
name = "pro"
where = {{ tier = "pro" }}
[serve]
accuracy_when_confident = 0.9
[proof]
margin = 0.05
[sizing]                        # what further fits find has tests of its own
seeds = 1
budgets = [1.0]
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
[model]
provider = "example"
base_url = ""
model = "recorded-teacher-2026-01-01"
revision = "2026-01-01"
[use]
student_kind = "classifier"
distribution = "internal"
purpose = "test the road"
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


def rows(count: int, *, seed: int = 0, price: float = 0.002) -> list[dict]:
    """
    Rows of a log that a fitted student reads with ease, and no do-nothing baseline: each label's words end in noise,
    so that whole words help nobody, and three of seven are another label's, so that the nearest row often misleads.
    """
    draw = random.Random(seed)
    found = []
    for i in range(count):
        label = draw.choice(list(WORDS))
        stems = draw.sample(WORDS[label], 4)
        stems += [draw.choice(WORDS[draw.choice([x for x in WORDS if x != label])]) for _ in range(3)]
        words = [stem + "".join(draw.choices("aeiou", k=4)) for stem in stems] + draw.sample(FILLER, 12)
        draw.shuffle(words)
        at = f"2026-02-{1 + i * 27 // count:02d}T{i % 24:02d}:{i % 60:02d}:00Z"
        found.append(
            {"id": f"r{i}", "ts": at, "text": " ".join(words), "tier": draw.choice(["pro", "free"]), "truth": label,
             "output": label.upper(), "finish_reason": "stop", "latency_s": 0.8, "cost_usd": price}
        )  # fmt: skip
    return found


def write_log(path: Path, found: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    return path


def make_project(root: Path, found: list[dict] | None = None) -> Path:
    """A project with its log imported."""
    root.mkdir(exist_ok=True)
    (root / "overproof.toml").write_text(PROJECT.format(linear=LINEAR, labels=json.dumps(list(WORDS), ensure_ascii=False)))
    (root / "prompt.md").write_text("Answer with one label.")
    (root / "terms.toml").write_text(TERMS.format(digest=read_entry("own-answers").digest))
    log = write_log(root / "log.jsonl", rows(900) if found is None else found)
    project = load_project(root)
    with open_store(root) as store:
        take(store, project, [log])
    return root


class Maker:
    """What the tests of this folder make projects with."""

    rows = staticmethod(rows)
    write_log = staticmethod(write_log)
    project = staticmethod(make_project)
    labels = tuple(WORDS)


@pytest.fixture
def make() -> type[Maker]:
    return Maker


@pytest.fixture(scope="session")
def maker() -> type[Maker]:
    """`make`, for fixtures that live longer than a test."""
    return Maker


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The easy project, to be copied."""
    return make_project(tmp_path_factory.mktemp("imported") / "easy")


@pytest.fixture
def easy(imported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(imported, tmp_path / "easy")


@pytest.fixture(scope="session")
def template(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The easy project twice: "calibrate" has stopped before a sealed row was opened, "gate" has its verdict."""
    folder = tmp_path_factory.mktemp("template")
    root = shutil.copytree(imported, folder / "calibrate")
    for stage in ("calibrate", "gate"):
        with open_store(root) as store:
            distil(store, load_project(root), to=stage)
        if stage == "calibrate":
            root = shutil.copytree(root, folder / "gate")
    return folder


@pytest.fixture
def fitted(template: Path, tmp_path: Path) -> Path:
    """The easy project after calibration: what a test changes from there on costs the rest of the road only."""
    return shutil.copytree(template / "calibrate", tmp_path / "easy")


@pytest.fixture
def ran(template: Path, tmp_path: Path) -> Path:
    """The easy project after its first run."""
    return shutil.copytree(template / "gate", tmp_path / "easy")
