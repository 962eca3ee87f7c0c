"""The user's file: strict, every mistake at once, each with table, key and a suggestion."""

import dataclasses
import hashlib
import re
from pathlib import Path

import pytest

from overproof.errors import ProjectError
from overproof.project import (
    LISTS,
    TABLES,
    is_person,
    load_project,
    moving_model,
)
from overproof.settings import BarsTable, SliceTable, expand_slices
from overproof.task import Bar

GOOD = """
[task]
name = "routing"
input = ["subject", "body"]
output = { classes = ["billing", "bug", "other"] }
prompt = "prompt.md"
[owner]
name = "Dana Ruiz"
email = "dana@northlane.example"
deputy = "Ana Vogt"
[teacher]
use = "openai.v1"
base_url = "https://api.example.com/v1"
model = "big-2026-05-01"
api_key_env = "KEY"
samples = 1
hard_samples = 3
extra_on = ["bug", "enterprise"]
budget_usd = 20
price_in_usd_per_million = 1
price_out_usd_per_million = 4.0
[[verify]]
use = "label_set.v1"
[[student]]
use = "linear.v1"
C = 2.0
[[student]]
use = "linear.v1"
name = "small"
[bars]
fidelity = 0.9
accuracy = 0.8
[[slice]]
name = "enterprise"
where = { tier = "enterprise", language = ["en", "de"] }
accuracy = 0.96
min_n = 200
critical = true
[[slice]]
by = "language"
"""


def write(folder: Path, text: str = GOOD, prompt: str = "Answer with one label.") -> Path:
    (folder / "prompt.md").write_text(prompt, encoding="utf-8")
    (folder / "overproof.toml").write_text(text, encoding="utf-8")
    return folder


def problems(folder: Path, text: str = GOOD, *overrides: str) -> list[str]:
    with pytest.raises(ProjectError) as caught:
        load_project(write(folder, text), overrides=overrides)
    assert caught.value.exit_code == 2
    return list(caught.value.problems)


def test_a_good_file_becomes_a_frozen_project(tmp_path: Path) -> None:
    """All tables arrive with their defaults; parts keep their options; the pin carries prompt and sampling."""
    project = load_project(write(tmp_path))
    assert project.task.output.labels == ("billing", "bug", "other")
    assert project.task.prompt == "Answer with one label."
    assert [(p.name, dict(p.options)) for p in project.students] == [("linear.v1", {"C": 2.0}), ("small", {})]
    assert [b.name for b in project.baselines] == ["majority.v1", "nearest.v1", "ngram.v1"]
    assert project.bars.bars == (Bar(metric="accuracy", at_least=0.8), Bar(metric="fidelity", at_least=0.9))
    assert project.pin.provider == "api.example.com"
    assert project.pin.parameters == {"temperature": 0.0, "max_tokens": 64}
    assert project.pin.prompt_digest == project.digests["prompt"] == hashlib.sha256(b"Answer with one label.").hexdigest()
    assert project.owner is not None
    assert project.owner.review_days == 90
    assert project == load_project(tmp_path / "overproof.toml")
    with pytest.raises(dataclasses.FrozenInstanceError):
        project.file = "x"  # type: ignore[misc]


def test_ten_mistakes_give_ten_problems_at_once(tmp_path: Path) -> None:
    """Each mistake of a bad file is told, with its table and key, in one go."""
    bad = GOOD
    for old, new in (
        ('name = "routing"', 'name = "My Routing"'),
        ("fidelity = 0.9\n", "fidelity = 1.9\n"),
        ('use = "linear.v1"\nname = "small"', 'use = "liner.v1"\nname = "small"'),
        ("big-2026-05-01", "big-latest"),
        ('prompt = "prompt.md"', 'prompt = "promt.md"'),
        ("budget_usd = 20", "budjet_usd = 20"),
        ('name = "Dana Ruiz"', 'name = "Routing Team"'),
        ('by = "language"', 'name = "enterprise"\nwhere = { language = "fr" }'),
        ("hard_samples = 3", "hard_samples = 0"),
        ("[bars]", '[trafic]\nsource = "log"\n[bars]'),
    ):
        assert old in bad
        bad = bad.replace(old, new)
    found = problems(tmp_path, bad)
    for word in (
        "[task]: name = 'My Routing'", "[bars]: fidelity = 1.9",
        "second [[student]]: no part named 'liner.v1' among students. Available:", "Did you mean 'linear.v1'?",
        "[task]: prompt", "[teacher]: unknown key 'budjet_usd'", "Did you mean 'budget_usd'?", "[owner]: name is 'Routing Team'",
        "[[slice]]: 2 are named 'enterprise'", "[teacher]: hard_samples = 0", "[trafic]: unknown table", "Did you mean 'traffic'?",
    ):  # fmt: skip
        assert any(word in line for line in found), f"{word!r} not in {found}"
    assert len(found) == len(set(found)) == 10 + 2, found  # budget and hard_samples have a second consequence


MISTAKES = {
    "a moving model": ('model = "big-2026-05-01"', 'model = "big-latest"', "[teacher]: model 'big-latest' moves"),
    "no model": ('model = "big-2026-05-01"\n', "", "[teacher]: model is missing"),
    "no prompt file": ('"prompt.md"', '"promt.md"', "[task]: prompt = 'promt.md': No such file"),
    "labels that fold together": ('"bug", "other"', '"bug", "Bug "', "are the same once case"),
    "one label": ('["billing", "bug", "other"]', '["billing"]', "at least two labels"),
    "labels of another type": ('["billing", "bug", "other"]', "[1, 2]", "list of labels in quotes"),
    "a reserved output kind": ('{ classes = ["billing", "bug", "other"] }', '{ fields = ["a"] }', "expected one of classes"),
    "no input": ('["subject", "body"]', "[]", "[task]: input = []"),
    "a bar as text": ("fidelity = 0.9", 'fidelity = "0.9"', "[bars]: fidelity = '0.9'; should be a valid number"),
    "a bar that is nan": ("fidelity = 0.9", "fidelity = nan", "[bars]: fidelity = nan"),
    "no bar": ("fidelity = 0.9\naccuracy = 0.8", "ece = 0.1", "nothing could be proven"),
    "an unknown student": ('use = "linear.v1"\nC', 'use = "encodr.v1"\nC', "first [[student]]: no part named 'encodr.v1'"),
    "two students of one name": ('\nname = "small"', "", "2 are named 'linear.v1'"),
    "an unknown verifier": ("label_set.v1", "label_sett.v1", "[[verify]]: no part named 'label_sett.v1' among verifiers"),
    "an unknown teacher": ('use = "openai.v1"', 'use = "opnai.v1"', "Did you mean 'openai.v1'?"),
    "a single table": ("[[verify]]", "[verify]", "write [[verify]], with two brackets"),
    "samples the wrong way": ("hard_samples = 3", "hard_samples = 1", "extra_on without hard_samples"),
    "fewer hard samples": ('samples = 1\nhard_samples = 3\nextra_on = ["bug", "enterprise"]', "samples = 4\nhard_samples = 3", "less than samples = 4"),
    "extra_on nobody": ('extra_on = ["bug"', 'extra_on = ["bugg"', "Did you mean 'bug'?"),
    "the key itself": ('api_key_env = "KEY"', 'api_key_env = "sk-abc123"', "never the key itself"),
    "no price": ("price_in_usd_per_million = 1\n", "", "price_in_usd_per_million is missing"),
    "no budget": ("budget_usd = 20\n", "", "budget_usd is missing"),
    "no address": ('"https://api.example.com/v1"', '"api.example.com"', "[teacher]: base_url"),
    "a path for an API": ("samples = 1\n", 'samples = 1\npath = "prompt.md"\n', "path belongs to recorded.v1"),
    "recorded with an address": ('use = "openai.v1"', 'use = "recorded.v1"', "contradict recorded.v1"),
    "an owner of nobody": ('email = "dana@northlane.example"', 'email = "dana"', "[owner]: email 'dana'"),
    "owner is deputy": ('deputy = "Ana Vogt"', 'deputy = "dana ruiz"', "deputy is the owner"),
    "a slice without rule": ('by = "language"', 'name = "fr"', "either where = { attribute"),
    "a slice with two rules": ('by = "language"', 'by = "language"\nwhere = { a = "b" }', "either where = { attribute"),
    "a slice with a bad function": ('by = "language"', 'name = "x"\nwhere = "no function"', "module:function"),
    "a slice of no label": ('by = "language"', 'name = "x"\nwhere = { label = "bgu" }', "Did you mean 'bug'?"),
    "an option that is a date": ("C = 2.0", "C = 2026-01-01", "neither text, number"),
    "an option that is nan": ("C = 2.0", "C = nan", "neither text, number"),
    "hard samples of one answer": ('extra_on = ["bug", "enterprise"]\n', "", "one answer has none to differ from"),
    "a tolerance of nothing": ("[bars]", "[fairness]\ntolerance = 0.1\n[bars]", "[fairness]: tolerance without groups"),
    "a selected label nobody has": ("[bars]", '[fairness]\ngroups = ["tier"]\nselected = ["bgu"]\n[bars]', "Did you mean 'bug'?"),
    "a swap file that is not there": ("[bars]", '[fairness]\nswaps = "gone.json"\n[bars]', "[fairness]: swaps = 'gone.json'"),
    "a syntax error": ("[bars]", "[bars", "line 30, column"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_table_key_and_remedy(tmp_path: Path, name: str) -> None:
    """One mistake in a good file gives exactly one problem, which names it."""
    old, new, word = MISTAKES[name]
    assert old in GOOD
    found = problems(tmp_path, GOOD.replace(old, new, 1))
    assert len(found) == 1, found
    assert word in found[0]


def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    """The message about a key that was pasted into the file doesn't print the key."""
    text = GOOD.replace('api_key_env = "KEY"', 'api_key_env = "sk-abc123"\napi_key = "sk-def456"')
    assert not re.search(r"abc123|def456", "\n".join(problems(tmp_path, text)))


@pytest.mark.parametrize(
    ("content", "word"), [(b"\xff\xfe", "utf-8"), (b"", "[task]: missing"), (b"a = 1", "[a]: unknown table")]
)
def test_bytes_that_are_no_project_are_told(tmp_path: Path, content: bytes, word: str) -> None:
    """Not UTF-8, empty, and something else: problems, not tracebacks."""
    (tmp_path / "overproof.toml").write_bytes(content)
    with pytest.raises(ProjectError, match=re.escape(word)):
        load_project(tmp_path)


def test_no_file_names_the_verb_that_writes_one(tmp_path: Path) -> None:
    """An empty folder: the message says `overproof init`."""
    with pytest.raises(ProjectError, match="overproof init"):
        load_project(tmp_path)


def test_overrides_reach_tables_lists_and_new_keys(tmp_path: Path) -> None:
    """--set takes numbers, text and lists, counts students from 1, and changes the project's digest."""
    write(tmp_path)
    plain = load_project(tmp_path)
    sets = ("teacher.budget_usd=5", "student.2.C=3", "promptset.split=attribute:part", 'promptset.match=["tier"]')
    project = load_project(tmp_path, overrides=sets)
    assert project.teacher.budget_usd == 5
    assert project.students[1].options == {"C": 3}
    assert (project.promptset.split, project.promptset.match) == ("attribute:part", ("tier",))
    assert project.digests["project"] != plain.digests["project"]


@pytest.mark.parametrize("text", ["bars", "bars.fidelity", "fidelity=1", "student.3.C=1", "student.x.C=1", "task.name.x=1"])
def test_a_bad_override_is_a_problem(tmp_path: Path, text: str) -> None:
    """An override that goes nowhere is told with its text."""
    assert any(f"--set {text!r}" in line for line in problems(tmp_path, GOOD, text))


def test_an_override_is_checked_like_the_file(tmp_path: Path) -> None:
    """An override can't bring in what the file may not say."""
    assert problems(tmp_path, GOOD, "bars.fidelity=2")[0].startswith("[bars]: fidelity = 2")


def test_a_recording_pins_itself(tmp_path: Path) -> None:
    """For recorded answers the digest of the file is the revision; a missing file is told."""
    text = re.sub(r"\[teacher\].*?\[\[verify\]\]", '[teacher]\nuse = "recorded.v1"\nmodel = "readers"\npath = "a.jsonl"\n[[verify]]', GOOD, flags=re.DOTALL)
    assert any("path = 'a.jsonl'" in line for line in problems(tmp_path, text))
    (tmp_path / "a.jsonl").write_text('{"id": "1", "output": "bug"}\n')
    project = load_project(tmp_path)
    assert project.pin.revision == project.digests["recording"] == hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    assert project.pin.provider == "recording"
    assert project.pin.parameters == {}


def test_slices_expand_in_file_order(tmp_path: Path) -> None:
    """`by` gives one slice per value, in place; the first of two slices of one name stays."""
    tables = load_project(write(tmp_path)).slices
    found = expand_slices(tables, {"language": ["fr", "de"]})
    assert [s.name for s in found] == ["enterprise", "language=de", "language=fr"]
    assert found[0].where == (("tier", ("enterprise",)), ("language", ("en", "de")))
    assert found[0].bars == (Bar(metric="accuracy", at_least=0.96, min_n=200),)
    assert found[0].critical
    same = (SliceTable(name="language=de", where={"x": "y"}), SliceTable(by="language"))
    assert [s.where for s in expand_slices(same, {"language": ["de"]})] == [(("x", ("y",)),)]
    assert expand_slices((SliceTable(name="f", where="mod:fn"),), {})[0].function == "mod:fn"


@pytest.mark.parametrize(
    ("model", "revision", "moves"),
    [
        ("big-2026-05-01", "", False), ("gpt-4-0613", "", False), ("mistral-large-2407", "", False), ("claude-x-20250514", "", False),
        ("gemini-1.5-pro-002", "", False), ("gpt-4o", "", True), ("gpt-4o", "latest", True), ("gpt-4o", "fp_44709d6fcb", False),
        ("claude-latest", "", True), ("claude-latest", "r1", True), ("x", "main", True), ("deepseek-v4.1", "", True),
        ("qwen3", "ab" * 32, False),
    ],
)  # fmt: skip
def test_moving_models_are_told_from_pinned_ones(model: str, revision: str, *, moves: bool) -> None:
    """A date, a version stamp or a revision pins; an alias doesn't."""
    assert (moving_model(model, revision) is not None) == moves


@pytest.mark.parametrize(("name", "email", "good"), [
    ("Dana Ruiz", "d@x.example", True), ("李雷", "li@x.example", True), ("Support Team", "d@x.example", False), ("", "d@x.example", False),
    ("Dana Ruiz", "d@x", False), ("<name>", "d@x.example", False),
])  # fmt: skip
def test_people_are_told_from_groups(name: str, email: str, *, good: bool) -> None:
    """A person has a name and an address; a team is no person."""
    assert (is_person(name, email) is None) == good


def test_every_key_is_in_the_reference(pytestconfig: pytest.Config) -> None:
    """docs/project-file.md names every table and every key."""
    text = (Path(pytestconfig.rootpath) / "docs" / "project-file.md").read_text(encoding="utf-8")
    kinds = {**{f"[{key}]": kind for key, kind in TABLES.items()}, "[[slice]]": SliceTable}
    for table, kind in kinds.items():
        section = text.partition(f"## {table}")[2].partition("\n## ")[0]
        missing = [f.name for f in dataclasses.fields(kind) if f"`{f.name}`" not in section]
        assert not missing, (table, missing)
    assert all(f"[[{key}]]" in text for key in LISTS)


def test_bars_left_out_are_no_bars() -> None:
    """Only metrics that the file names get a bar."""
    assert BarsTable(ece=0.1).bars == ()


def test_an_out_of_scope_label_has_to_be_a_class(tmp_path: Path) -> None:
    """[task] out_of_scope names one of the classes, or the mistake is told."""
    first = load_project(write(tmp_path)).task.output.labels[0]
    assert load_project(tmp_path / "overproof.toml", overrides=[f'task.out_of_scope="{first}"']).task.out_of_scope == first
    (found,) = problems(tmp_path, GOOD, 'task.out_of_scope="nowhere"')
    assert "out_of_scope names no class 'nowhere'" in found


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('[watch.on]\ndrfit = "alarm"', "[watch]: on has no 'drfit'. ... Did you mean 'drift'"),
        ('[watch.on]\ndrift = "rollback"', "[watch]: on.drift = 'rollback'. ... Did you mean 'roll-back'"),
        ('[watch]\ndeadline = "0d"', "deadline = '0d'; from 1d to 60d"),
        ('[watch]\ncanaries = "0h"', "canaries = '0h'"),
        ('[watch]\ncanaries = "daily"', "canaries = 'daily'"),
        ("[watch]\nfloor_per_day = 600", "floor_per_day = 600 for each slice is more than"),
        ('[notify]\nwebhook = "http://hooks.example.com/x"', "webhook is not encrypted"),
        ('[notify]\nwebhook = "https://u:pw@hooks.example.com/x"', "webhook carries a user name or password"),
        ('[notify]\nwebhook = "https://2130706433/x"', "a private address"),
        ('[notify]\nwebhook = "https://hooks.example.com:22/x"', "goes to port 22"),
        ('[notify]\nwebhook_secret_env = "SECRET"', "webhook is missing"),
        ('[notify]\nwebhook = "https://hooks.example.com/"\nwebhook_secret_env = "s3cr3t"', "webhook_secret_env must be the NAME"),
        ('[notify]\nemail_to = ["ana@shop.example"]\nemail_from = "o@shop.example"', "smtp_host is missing; email_to needs it"),
        ('[notify]\nsmtp_host = "mail.shop.example"', "email_to is missing"),
        ('[notify]\nemail_to = ["ana"]\nemail_from = "o@shop.example"\nsmtp_host = "m.example"', "email_to 'ana' is not an address"),
        ('[notify]\nemail_to = ["a@b.example\\r\\nBcc: x@y.example"]\nemail_from = "o@shop.example"\nsmtp_host = "m.example"', "is not an address"),
        ('[notify]\nemail_to = ["a@b.example"]\nemail_from = "o@shop.example"\nsmtp_host = "m.example"\nsmtp_security = "none"', "in the clear"),
        ('[notify]\nemail_to = ["a@b.example"]\nemail_from = "o@shop.example"\nsmtp_host = "m.example"\nsmtp_user_env = "U"', "belong together"),
    ],
)
def test_what_the_watch_and_its_notices_can_not_mean_is_told(tmp_path: Path, lines: str, told: str) -> None:
    """Unknown words get a suggestion; what would reach nobody, or travel in the clear, is refused; no secret is repeated."""
    found = problems(tmp_path, f"{GOOD}\n{lines}\n")
    assert len(found) == 1, found
    assert all(part in found[0] for part in told.split("..."))
    assert "pw@" not in found[0]
    assert "s3cr3t" not in found[0]


def test_a_watch_that_says_everything_is_admitted(tmp_path: Path) -> None:
    """Webhooks keep their query, a relay on this machine needs no encryption."""
    text = """
[watch]
deadline = "3d"
canaries = "off"
on = { drift = "re-distil", bar = "hold" }
[notify]
webhook = "https://hooks.example.com/services/T0?sig=abc"
webhook_secret_env = "HOOK_SECRET"
email_to = ["ana@shop.example", "dana@shop.example"]
email_from = "overproof@shop.example"
smtp_host = "127.0.0.1"
smtp_security = "none"
"""
    project = load_project(write(tmp_path, GOOD + text))
    assert (project.watch.act("drift"), project.watch.act("bar"), project.watch.act("starved")) == ("re-distil", "hold", "alarm")
    assert project.notify.webhook.endswith("sig=abc")
