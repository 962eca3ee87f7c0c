"""Pages for the eye and the hand: axe finds nothing serious, light and dark, on a laptop and a phone; nothing is too heavy."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from tests.web.conftest import paths

TASK = "northlane-inbox"
HEAVY = 500_000
SIZES = {"laptop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def tabs(browser):
    """A tab for each screen and scheme. The policy is left out here alone: axe brings itself into the page as a script."""
    made = {}
    for size, view in SIZES.items():
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport=view, color_scheme=scheme, bypass_csp=True)
            made[size, scheme] = context.new_page()
    yield made
    for tab in made.values():
        tab.context.close()


@pytest.mark.parametrize("path", paths(TASK))
def test_axe_finds_nothing_serious(tabs, site, path):
    """Names, contrast, order, landmarks: the rules of axe-core, on a laptop in the light and on a phone in the dark."""
    for size, scheme in (("laptop", "light"), ("phone", "dark")):
        tab = tabs[size, scheme]
        tab.goto(site.url + path)
        tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        found = Axe().run(tab).response["violations"]
        serious = {one["id"]: [node["html"][:200] for node in one["nodes"][:3]] for one in found if one["impact"] in ("serious", "critical")}
        assert not serious, (size, scheme, serious)


@pytest.mark.parametrize("path", paths(TASK))
def test_a_page_fits_a_phone_and_weighs_little(tabs, site, path):
    """Nothing has to be scrolled sideways but tables in their own frame; page, script and style together stay under half a megabyte."""
    tab = tabs["phone", "light"]
    weights = []
    tab.on("response", lambda one: weights.append(len(one.body())) if one.status == 200 else None)
    tab.goto(site.url + path)
    tab.wait_for_load_state("networkidle")
    assert tab.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"]["width"], path
    assert 0 < sum(weights) <= HEAVY, weights


@pytest.mark.parametrize("path", paths(TASK))
def test_the_keyboard_reaches_everything_and_shows_where_it_is(tabs, site, path):
    """Tab goes over the skip link into the page, and what has the focus has a visible outline."""
    tab = tabs["laptop", "light"]
    tab.goto(site.url + path)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Tab")
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline not in ("none", ""), outline
    assert tab.locator("main h1").count() == 1
