"""Every page there is: dispatch, the menu and the tests that visit all pages are made from it."""

from __future__ import annotations

from typing import Final

from overproof.web.view import View
from overproof.web.views import evaluation, gate, overview, review, rollout, run, traffic, watch

VIEWS: Final[tuple[View, ...]] = (
    *overview.VIEWS, *run.VIEWS, *evaluation.VIEWS, *gate.VIEWS, *rollout.VIEWS, *watch.VIEWS, *review.VIEWS, *traffic.VIEWS,
)  # fmt: skip
