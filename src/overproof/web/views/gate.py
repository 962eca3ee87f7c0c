"""The gate: every check of a run with what it rests on, waivers, and the papers to take along."""

from __future__ import annotations

from overproof.web.gate_model import GateView, paper, read_gate
from overproof.web.view import Ask, Download, NotHere, Page, Reply, View


def gate(ask: Ask) -> Reply:
    """One run at the gate; `?run=` chooses an earlier one."""
    place = ask.place
    wanted = ask.query.text("run")
    known = place.runs()
    if wanted and wanted not in {one.id for one in known}:
        raise NotHere(f"there is no run {wanted[:60]!r} of {place.name}", next_action="choose one of the list")
    seen = read_gate(place, wanted)
    return Page(template="gate.html", title="Gate and dossier", values={"gate": seen}, live=_live(seen, known[-1].id if known else ""))


def _live(seen: GateView | None, newest: str) -> dict[str, str]:
    """A run that ends while somebody looks is said."""
    if seen is None:
        return {"newer": f"run {newest} has a verdict now; load the page again" if newest else ""}
    return {"newer": f"a newer run, {newest}, has a verdict" if newest != seen.run.id else ""}


def papers(ask: Ask) -> Reply:
    """A paper of a run, to keep: what is in it is never shown as a page of ours."""
    run, name = ask.params["run"], ask.params["name"]
    place = ask.place
    found = paper(place, run, name) if run in {one.id for one in place.runs()} else None
    if found is None:
        raise NotHere(f"run {run[:60]!r} has no {name[:60]!r}", next_action="choose one of the list on the page of the gate")
    return Download(name=f"{place.name}-{run}-{name}", body=found)


VIEWS = (View(path="/{task}/gate", answer=gate, nav="Gate"), View(path="/{task}/gate/{run}/{name}", answer=papers))
