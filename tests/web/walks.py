"""What tests of pages do to a copy of the walked project beside the walk itself."""

from dataclasses import replace

from overproof.evidence.waivers import Waiver
from overproof.pipeline import load_run
from overproof.project import load_project
from overproof.recipes import gate_recipe
from overproof.runs import runs_of
from overproof.steps.dossier import DOSSIER, DossierRecipe
from overproof.steps.gate import GATE
from overproof.store.project_store import open_store
from overproof.store.waivers import give_waiver

CANDIDATE = "c0ffee0123456789"


def refused(folder):
    """Take the newest evidence to the gate once more, with nobody named as owner and sizes asked for that nobody compared; the run's id and verdict."""
    project = load_project(folder / "overproof.toml")
    with open_store(folder) as store:
        last, known = load_run(store), runs_of(store)
        report = last.artifacts["report"]
        plan = report.value.certificate.plan_hash
        today = gate_recipe(project, report.value).today
        waiver = Waiver(
            check="S01", plan=plan, by="Dana Ruiz", second="Imre Sandoval", given=today, until=today,
            reason="the shop reads answers and never the stated confidence <b>itself</b>", control="the threshold explorer is not shown to anybody",
        )  # fmt: skip
        give_waiver(store.decisions, waiver)
        recipe = replace(gate_recipe(project, report.value, challenged=True, cases=True), owner="", sizing=True, waivers=(waiver,))
        memo = store.memo()
        with store.role("run"):
            verdict = memo.run(GATE, last.artifacts["evidence"], recipe=recipe)
            dossier = memo.run(DOSSIER, last.artifacts["evidence"], verdict, recipe=DossierRecipe(today=today, version="0"))
        name = f"r{len(known) + 1}"
        digests = {**known[-1].digests, "verdict": verdict.digest, "dossier": dossier.digest}
        body = {"outcome": "refusal", "headline": verdict.value.headline, "digests": digests}
        store.decisions.append("gate", actor="nobody named", subject=name, body=body)
        return name, verdict.value


def with_candidate(folder):
    """A release that was never taken to a stage: the serving one's files under an id of its own."""
    with open_store(folder) as store:
        release = store.releases.get(store.rollouts.current("northlane-inbox").release_id)
        store.releases.record(replace(release, id=CANDIDATE), by="Dana Ruiz", why="the gate passed it")
    return CANDIDATE
