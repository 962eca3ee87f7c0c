"""The overview: for each task, whether to trust its student, at a glance."""

from __future__ import annotations

from typing import Any

from overproof.web.place import Place
from overproof.web.view import Ask, Page, Reply, View


def overview(ask: Ask) -> Reply:
    """Every task that the caller may see."""
    rows = [_task(one) for one in ask.places]
    return Page(template="overview.html", title="Overview", values={"rows": rows}, live={f"stage-{row['task']}": str(row["stage"]) for row in rows})


def _task(place: Place) -> dict[str, Any]:
    state = place.store.rollouts.current(place.name)
    return {"task": place.name, "stage": state.stage, "release": state.release_id or ""}


VIEWS = (View(path="/", answer=overview),)
