"""Every page there is: dispatch, the menu and the tests that visit all pages are made from it."""

from __future__ import annotations

from typing import Final

from overproof.web.view import View
from overproof.web.views import overview, review

VIEWS: Final[tuple[View, ...]] = (
    *overview.VIEWS,
    *review.VIEWS,
)
