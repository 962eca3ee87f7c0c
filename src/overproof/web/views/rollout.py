"""The rollout: where the release stands, what the next stage needs, and the two moves that people make."""

from __future__ import annotations

from overproof.errors import DataError, OverproofError
from overproof.project import Project
from overproof.serve import moves
from overproof.web.place import Place
from overproof.web.render import ago, when
from overproof.web.rollout_model import Staging, read_rollout
from overproof.web.view import Ask, Data, Page, Reply, View

NAME = "say who decides: the name goes into the log of decisions"
AGAIN = "look at the page as it is now, then decide again"


def rollout(ask: Ask) -> Reply:
    """Stage, evidence, moves, history."""
    place, problem = ask.place, ""
    try:
        project = place.reloaded()
    except OverproofError as error:  # a project file in the middle of an edit: what serves goes on by the one before
        project, problem = place.project, f"the project file can't be read, so this shows it as it was at the start: {error.what}"
    seen = read_rollout(place, project, now=ask.now)
    return Page(template="rollout.html", title="Rollout", values={"seen": seen, "problem": problem, "may": ask.may("promote")}, live=_live(seen, ask.now))


def _live(seen: Staging, now: float) -> dict[str, str]:
    state, found = seen.state, {"stage": seen.stage, "epoch": str(seen.state.epoch)}
    if state.epoch:
        found["since"] = f"{when(state.since)}, {ago(state.since, now)} ago"
    if state.release_id is not None:
        found["waits"] = seen.view.decision.why
        found["newest"] = f"{ago(seen.newest, now)} ago" if seen.newest else "never"
        for one in seen.bars:
            found |= {f"n-{one.name}": f"{one.state.n:,}", f"wrong-{one.name}": f"{one.state.wrong:,}", f"word-{one.name}": one.word}
    return found


def promote(ask: Ask) -> Reply:
    """Take a release on, or say why not; a refused promotion changes nothing."""
    place, by = ask.place, _by(ask)
    project = _unmoved(ask, place)
    force = ask.said("why", needed="say why it may go on without the evidence: the reason goes into the log of decisions") if ask.body.get("force") is True else ""
    done = moves.promote(place.store, project, by=by, release_id=ask.said("release"), to=ask.said("to"), force=force, now=ask.now)
    to = done.to.name if done.to is not None else "the next stage"
    if not done.moved:
        raise DataError(f"not promoted to {to}: {done.why}", next_action="wait for what is missing; nothing was changed")
    return Data(value={"said": f"Release {done.state.release_id} is at {to}: {done.why}", "stage": done.state.stage})


def rollback(ask: Ask) -> Reply:
    """Give all requests to the teacher, at once; asks for no evidence."""
    place, by = ask.place, _by(ask)
    _unmoved(ask, place)
    state = moves.rollback(place.store, place.project, by=by, why=ask.said("why"), now=ask.now)
    return Data(value={"said": f"The teacher answers alone; release {state.last_release} was rolled back", "stage": state.stage})


def _by(ask: Ask) -> str:
    """The person's name, with the key that was used."""
    name = ask.said("by", most=100, needed=NAME)
    return f"{name} (key {ask.caller.id})" if ask.caller.id else name


def _unmoved(ask: Ask, place: Place) -> Project:
    """The project as it is now, if the rollout stands where the person saw it. Raises DataError where it was moved meanwhile."""
    now = place.store.rollouts.current(place.name)
    if ask.said("epoch") != str(now.epoch):
        raise DataError(f"the rollout was moved by {now.by or 'somebody'} since this page was loaded: it is at {now.stage}", next_action=AGAIN)
    return place.reloaded()


VIEWS = (
    View(path="/{task}/rollout", answer=rollout, nav="Rollout"),
    View(path="/{task}/rollout/promote", answer=promote, method="POST", scope="promote"),
    View(path="/{task}/rollout/back", answer=rollback, method="POST", scope="promote"),
)
