"""The overview: for each task, whether to trust its student, at a glance."""

from __future__ import annotations

from overproof.web.overview_model import Glance, read_overview
from overproof.web.render import ago
from overproof.web.view import Ask, Page, Reply, View


def overview(ask: Ask) -> Reply:
    """Every task that the caller may see, the ones that need somebody first."""
    found = read_overview(ask.places, now=ask.now)
    live = {name: text for one in found for name, text in _live(one, ask.now).items()}
    return Page(template="overview.html", title="Overview", values={"found": found}, live=live)


def _live(one: Glance, now: float) -> dict[str, str]:
    figure, state = one.answered, one.state
    return {
        f"stage-{one.task}": one.stage, f"word-{one.task}": one.word, f"alarms-{one.task}": f"{one.alarms:,}",
        f"since-{one.task}": f"for {ago(state.since, now)}" if state.epoch else "",
        f"kept-{one.task}": "" if figure is None or figure.value is None else f"{figure.value:.1%}",
        f"n-{one.task}": "" if figure is None else f"{figure.n:,}",
    }  # fmt: skip


VIEWS = (View(path="/", answer=overview),)
