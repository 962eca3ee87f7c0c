"""The traffic explorer: rows of the log by words and ways, and one request's whole story."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlencode

from overproof.data import REASONS
from overproof.store.search import Wanted
from overproof.web.render import part
from overproof.web.traffic_model import is_request, moment, read_story, read_traffic
from overproof.web.view import Ask, Go, NotHere, Page, Query, Reply, View

ROUTES: Final = ("student", "teacher", "imported")
FILTERS: Final = ("q", "route", "reason", "slice", "release", "low", "high", "differs", "since", "until")
SAID: Final = {
    "confident": "confident enough", "below_threshold": "below its threshold", "out_of_scope": "out of scope", "slice_not_certified": "slice not certified",
    "stage": "the rollout's stage", "student_error": "the student failed", "deadline": "no time left", "forced": "asked for by the caller",
    "no_release": "no release", "unmatched": "no task matched", "unsupported": "the call asks for more", "expired": "certificate expired", "outage": "teacher away",
}  # fmt: skip
"""Reasons of a route for people."""
MOST_N: Final = 1 << 62


def traffic(ask: Ask) -> Reply:
    """A page of rows."""
    place, query = ask.place, ask.query
    text = query.text("q")
    if is_request(place, text):
        return Go(to=f"/ui/{part(place.name)}/traffic/{part(text)}")
    digits = query.text("before")
    before = int(digits) if digits.isascii() and digits.isdigit() and int(digits) < MOST_N else None
    found = read_traffic(place, wanted(query), before=before)
    asked = {name: query.text(name) for name in FILTERS if query.text(name)}
    here = f"/ui/{part(place.name)}/traffic"
    older = None if found.older is None else f"{here}?{urlencode({**asked, 'before': found.older}, quote_via=quote)}"
    newest = f"{here}?{urlencode(asked, quote_via=quote)}" if before is not None else None
    caught = found.caught
    live = {"caught": f"{caught.done:,} of {caught.rows:,}"} if caught.behind else {}
    values = {"found": found, "asked": asked, "older": older, "newest": newest, "said": SAID, "base": here}
    return Page(template="traffic.html", title="Traffic", values=values, live=live)


def wanted(query: Query) -> Wanted:
    """What an address asks for; what makes no sense asks for nothing."""
    low, high = (query.number(name, -1.0, least=-1.0, most=1.0) for name in ("low", "high"))
    return Wanted(
        text=query.text("q"), route=query.one_of("route", ROUTES), reason=query.one_of("reason", REASONS), slice=query.text("slice"),
        release=query.text("release"), low=low if low > 0 else None, high=high if high >= 0 else None, differs=query.text("differs") == "1",
        since=moment(query.text("since")), until=moment(query.text("until"), end=True),
    )  # fmt: skip


def story(ask: Ask) -> Reply:
    """One request."""
    place = ask.place
    found = read_story(place, ask.params["id"])
    if found is None:
        raise NotHere(f"the log has no request {ask.params['id'][:100]!r}", next_action="look for it among the traffic")
    return Page(template="story.html", title="One request", values={"story": found, "said": SAID, "base": f"/ui/{part(place.name)}"})


VIEWS = (
    View(path="/{task}/traffic", answer=traffic, nav="Traffic"),
    View(path="/{task}/traffic/{id}", answer=story),
)
