"""The gate's table as a contract: checks break alone, installed checks of others join it, and every row keeps its evidence."""

import importlib
from dataclasses import replace
from unittest.mock import patch

import pytest
from tests.steps.gate_cases import ASKED_CASES, BEYOND, RATIOS, TABLE
from tests.steps.test_gate import RECIPE

from overproof import registry
from overproof.errors import DataError, ProjectError
from overproof.evidence import Finding
from overproof.evidence.waivers import Waiver
from overproof.project import load_project
from overproof.steps import gate as gate_module
from overproof.steps.checks.table import OwnCheck, finding
from overproof.steps.collect import Evidence
from overproof.steps.gate import ASKED, CHECKS, run_checks, ships, table_of

EVERY = {key: value for one in ASKED_CASES.values() for key, value in one.asked.items()} | {
    "probes": tuple(f"P0{n}" for n in range(1, 7)), "stage": "canary", "disparity": replace(RATIOS, amplified=BEYOND.amplified),
}  # fmt: skip
EVERY_RECIPE = replace(RECIPE, **EVERY)


def test_every_case_is_of_a_row_and_every_row_has_cases() -> None:
    """A row that is taken out of the table leaves its evidence behind, which fails; one that is put in has none."""
    assert {one.check for one in TABLE.values()} == {row.id for row in (*CHECKS, *ASKED)}
    assert [row.id for row in table_of(EVERY_RECIPE)] == [row.id for row in (*CHECKS, *ASKED)]


def alone(row) -> dict:
    """The table with one row."""
    return {name: tuple(one for one in rows if one is row) for name, rows in (("CHECKS", (row,)), ("ASKED", (row,))) if row in getattr(gate_module, name)} | {
        name: () for name in ("CHECKS", "ASKED") if row not in getattr(gate_module, name)
    }


def run_alone(row, check, evidence=None, recipe=EVERY_RECIPE) -> list[Finding]:
    tables = alone(row)
    tables = {name: tuple(replace(one, check=check) for one in rows) for name, rows in tables.items()}
    with patch.multiple(gate_module, **tables):
        return list(run_checks(evidence or Evidence(), recipe))


@pytest.mark.parametrize("row", [*CHECKS, *ASKED], ids=lambda row: row.id)
def test_a_check_that_breaks_is_not_run_with_the_exception(row) -> None:
    """Whichever it is, at once or after its first word, with its own title and what it may be waived for; then nothing ships."""

    def breaks(evidence, recipe):
        raise ZeroDivisionError("boom")

    def breaks_late(evidence, recipe):
        yield finding("pass", "so far")
        raise KeyError("late")

    def lacks(evidence, recipe):
        raise DataError("there is no thing", next_action="make the thing")

    told = {ZeroDivisionError: "the check broke: ZeroDivisionError: boom", KeyError: "the check broke: KeyError: 'late'", DataError: "there is no thing"}
    todo = {DataError: "make the thing"}
    for check, kind in ((breaks, ZeroDivisionError), (breaks_late, KeyError), (lacks, DataError)):
        (found,) = run_alone(row, check)
        assert (found.id, found.title, found.outcome, found.waivable) == (row.id, row.title, "not-run", row.waivable)
        assert (found.reason, found.next_action) == (told[kind], todo.get(kind, "report this as a defect of overproof, with this line"))
        assert not ships((found,), table=(row,))


def test_a_check_says_only_what_a_check_may_say(sound) -> None:
    """Silence and a word of people's are not-run; a waiver that a check brings along is taken off; digests are those of its inputs."""
    row = next(one for one in CHECKS if one.id == "G10")
    defect = "report this as a defect of overproof"
    (silent,) = run_alone(row, lambda e, r: iter(()))
    assert (silent.outcome, silent.reason, silent.next_action) == ("not-run", "the check reported nothing", defect)
    (odd,) = run_alone(row, lambda e, r: [finding("pass", "fine"), finding("waived", "never mind")])
    assert (odd.outcome, odd.reason, odd.next_action) == ("not-run", "the check said 'waived'; it may say fail, not-run, pass", defect)
    given = Waiver(check="G10", plan="p", by="A", second="B", reason="r", control="c", given="2026-01-01", until="2026-01-02")
    named = sound.digests | {"report": "9" * 64, "plan": "8" * 64, "other": "7" * 64}
    (brought,) = run_alone(row, lambda e, r: [replace(finding("pass", "fine"), waiver=given, id="G08", title="x")], replace(sound, digests=named))
    assert (brought.waiver, brought.id, brought.title, brought.waivable) == (None, "G10", row.title, False)
    assert brought.evidence == {"report": "9" * 64, "plan": "8" * 64}


def test_a_release_needs_report_and_bundle_whatever_the_checks_say(sound) -> None:
    """All pass by themselves, and still there is nothing to ship; what ships is named after its task."""
    row = next(one for one in CHECKS if one.id == "G17")
    with patch.multiple(gate_module, CHECKS=(row,), ASKED=()):
        done = {name: gate_module.gate(replace(sound, **lacking), RECIPE) for name, lacking in (("all", {}), ("bundle", {"bundle": None}), ("report", {"report": None}))}
    assert {name: type(one).__name__ for name, one in done.items()} == {"all": "Release", "bundle": "Refusal", "report": "Refusal"}
    assert {one.task for one in done.values()} == {"ticket-routing"}
    release = done["all"]
    assert (len(release.id), release.owner, release.candidate, release.review_due) == (16, "Dana Ruiz", "large", "2026-05-11")
    assert (release.bundle, release.certificate) == (sound.bundle, sound.report.certificate)
    assert release.headline.startswith("large answers")


HOUSE = """
from overproof.steps.comparisons import Answer

def size(evidence):
    n = len(evidence.trained)
    return Answer(outcome="pass" if n else "fail", reason=f"{n} candidates were trained", todo="" if n else "train one")

def breaks(evidence):
    raise ValueError("house of cards")

def odd(evidence):
    return ["yes"]
"""
PROJECT = """
[task]
name = "routing"
input = ["body"]
output = { classes = ["billing", "bug"] }
prompt = "prompt.md"
[owner]
name = "Dana Ruiz"
email = "dana@northlane.example"
deputy = "Ana Vogt"
[teacher]
use = "recorded.v1"
model = "big-2026-05-01"
[[student]]
use = "linear.v1"
[bars]
fidelity = 0.9
[gate]
checks = [CHECKS]
"""


@pytest.fixture
def installed(tmp_path):
    """house-1.0 as pip would leave it: a module, and metadata that registers three checks."""
    site = tmp_path / "site"
    (site / "house-1.0.dist-info").mkdir(parents=True)
    (site / "house_checks.py").write_text(HOUSE)
    (site / "house-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 1.0\n")
    points = "".join(f"house.{name}.v1 = house_checks:{name}\n" for name in ("size", "breaks", "odd"))
    (site / "house-1.0.dist-info" / "entry_points.txt").write_text(f"[overproof.checks]\n{points}gone.v1 = house_checks:gone\n")
    with pytest.MonkeyPatch.context() as changes:
        changes.syspath_prepend(str(site))
        importlib.invalidate_caches()
        registry._points.cache_clear()
        yield
    registry._points.cache_clear()


def of_house(evidence, *names) -> dict[str, Finding]:
    recipe = replace(RECIPE, own=tuple(OwnCheck(use=name) for name in names))
    return {f.id: f for f in run_checks(evidence, recipe) if f.id in names}


@pytest.mark.usefixtures("installed")
def test_a_check_of_an_installed_package_passes_fails_and_breaks_by_its_registered_name() -> None:
    """Found through the group overproof.checks; what is wrong with it is for its author to mend."""
    trained = Evidence(trained=(object(),))  # type: ignore[arg-type]
    for evidence, outcome, reason in ((trained, "pass", "1 candidates were trained"), (Evidence(), "fail", "0 candidates were trained")):
        found = of_house(evidence, "house.size.v1")["house.size.v1"]
        assert (found.outcome, found.reason, found.title, found.waivable) == (outcome, reason, "Own check house.size.v1", True)
    found = of_house(Evidence(), "house.breaks.v1", "house.odd.v1", "gone.v1", "house.siez.v1")
    assert {f.outcome for f in found.values()} == {"not-run"}
    assert found["house.breaks.v1"].reason == "the check broke: ValueError: house of cards"
    assert found["house.breaks.v1"].next_action == "mend the check, with this line"
    assert found["house.odd.v1"].reason == "house.odd.v1 gave str"
    assert found["house.odd.v1"].next_action == "return an `Answer`, a `Finding`, or several of them"
    assert "AttributeError" in found["gone.v1"].reason
    assert "Did you mean 'house.size.v1'?" in found["house.siez.v1"].reason


@pytest.mark.usefixtures("installed")
def test_a_project_names_installed_checks_and_no_others(tmp_path) -> None:
    """[gate] checks takes a registered name; one that nobody registered is an error before anything runs."""
    (tmp_path / "prompt.md").write_text("Say which.")
    path = tmp_path / "overproof.toml"
    path.write_text(PROJECT.replace("CHECKS", '"house.size.v1"'))
    assert load_project(path).gate.checks == ("house.size.v1",)
    path.write_text(PROJECT.replace("CHECKS", '"house.roof.v1"'))
    with pytest.raises(ProjectError, match=r"house\.roof\.v1"):
        load_project(path)


def test_a_check_by_module_and_function_that_cant_be_found_is_not_run() -> None:
    """Its name says where to put it."""
    (found,) = of_house(Evidence(), "no_such_house:size").values()
    assert (found.outcome, found.next_action) == ("not-run", "put no_such_house.py beside overproof.toml and define size in it")
