"""The frame of all pages: who may look, what every answer carries, and what a page's script may do."""

import re

import pytest
from tests.web.conftest import Site, get

from overproof.store.project_store import open_store
from overproof.web.table import VIEWS


@pytest.fixture(scope="module")
def keyed(northlane_folder, tmp_path_factory):
    """The pages of a project that has keys, with a key for each scope."""
    from tests.northlane import copied

    folder = copied(northlane_folder, tmp_path_factory.mktemp("keyed") / "northlane-inbox")
    with open_store(folder) as store:
        keys = {scope: store.keys.add(scope, scopes={scope}).secret for scope in ("read", "review", "promote")}
    running = Site(folder)
    yield running, keys
    running.stop()


def signed_in(site, key):
    """The cookie of a session."""
    status, headers, _ = get(f"{site.url}/ui/login", body={"key": key})
    assert status == 200
    return headers["set-cookie"].partition(";")[0]


def test_every_answer_forbids_scripts_that_are_not_ours_and_other_sites_frames(site):
    """Pages, files, mistakes: each carries the policy, and none may be sniffed or framed."""
    for path in ("/ui", "/ui/nothing", "/ui/static/app.js", "/ui/login"):
        _, headers, _ = get(site.url + path)
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["x-frame-options"], headers["referrer-policy"]) == ("nosniff", "DENY", "no-referrer")


def test_without_a_session_nothing_is_shown_where_there_are_keys(keyed):
    """Every page sends to the login, every change is refused."""
    site, _ = keyed
    for view in VIEWS:
        path = "/ui" + re.sub(r"\{(\w+)\}", r"\1", view.path.replace("{task}", "northlane-inbox"))
        status, headers, text = get(site.url + path, body={} if view.method == "POST" else None)
        assert status == (401 if view.method == "POST" else 303), path
        assert "inbox" not in text
        assert view.method == "POST" or headers["location"] == "/ui/login"


def test_a_session_holds_as_long_as_its_key_and_only_as_it_was_signed(keyed):
    """A good cookie shows the page; one with another end, another key or no seal does not; a revoked key ends it."""
    site, keys = keyed
    cookie = signed_in(site, keys["read"])
    assert get(f"{site.url}/ui", headers={"cookie": cookie})[0] == 200
    name, end, rest = cookie.split(".", 2)
    for forged in (f"{name}.{int(end) + 1}.{rest}", cookie[:-1] + ("0" if cookie[-1] != "0" else "1"), f"{name}..", "overproof_session="):
        assert get(f"{site.url}/ui", headers={"cookie": forged})[0] == 303
    assert get(f"{site.url}/ui/login", body={"key": "op_" + "x" * 43})[0] == 401


def test_a_change_needs_the_token_of_its_own_page(keyed):
    """With a session alone, as another site's page would have it, nothing is changed."""
    site, keys = keyed
    cookie = signed_in(site, keys["promote"])
    for view in (one for one in VIEWS if one.method == "POST" and one.scope == "promote"):
        path = "/ui" + view.path.replace("{task}", "northlane-inbox")
        assert get(site.url + path, headers={"cookie": cookie}, body={})[0] == 403
        assert get(site.url + path, headers={"cookie": cookie, "x-overproof-token": "0" * 64}, body={})[0] == 403


def test_a_foreign_page_or_name_reaches_nothing(site):
    """The guard of the gateway stands before the pages too."""
    assert get(f"{site.url}/ui", headers={"host": "evil.example"})[0] == 421
    assert get(f"{site.url}/ui", headers={"origin": "https://evil.example"})[0] == 403


def test_what_is_not_there_says_where_to_go(page, site):
    """An unknown page is said as a page, with a way back."""
    page.goto(f"{site.url}/ui/northlane-inbox/nowhere")
    assert "There is no such page" in page.locator(".problem").inner_text()
    page.get_by_role("link", name="Back to the overview").click()
    assert page.url.rstrip("/").endswith("/ui")


def test_the_theme_can_be_turned_and_stays(page, site):
    """Dark is dark after the next page too."""
    page.goto(f"{site.url}/ui")
    page.locator("#theme").click()
    first = page.evaluate("document.documentElement.dataset.theme")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == first
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") is not None


def test_the_pages_stand_beside_the_gateway_where_it_is_asked(project_folder):
    """`overproof serve --web` answers /ui, and calls as before."""
    from tests.serve.started import Started

    gateway = Started(project_folder, more=("--web",))
    try:
        assert get(f"{gateway.root}/ui")[0] == 200
        assert get(f"{gateway.root}/healthz")[0] == 200
    finally:
        gateway.stop()
