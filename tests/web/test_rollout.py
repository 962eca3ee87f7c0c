"""The rollout page: a move is made with a name, only where it may be, and never on a page that is out of date."""

import re

import pytest
from tests.northlane import copied
from tests.web.conftest import Site, get
from tests.web.walks import CANDIDATE, with_candidate

from overproof.project import load_project
from overproof.serve import moves
from overproof.store.project_store import open_store
from overproof.web.place import Place
from overproof.web.rollout_model import read_rollout

TASK = "northlane-inbox"


@pytest.fixture
def folder(northlane_folder, tmp_path):
    """A copy with a release that waits."""
    found = copied(northlane_folder, tmp_path / "inbox")
    with_candidate(found)
    return found


def current(folder):
    """The stage in the store."""
    with open_store(folder) as store:
        return store.rollouts.current(TASK)


def opened(site, key=""):
    """(headers for changes, the page's text)."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    _, _, text = get(f"{site.url}/ui/{TASK}/rollout", headers=headers)
    return {**headers, "x-overproof-token": re.search(r'overproof-token" content="([0-9a-f]*)"', text).group(1)}, text


def read(folder, **more):
    """The read model."""
    place = Place(load_project(folder / "overproof.toml"))
    try:
        return read_rollout(place, place.project, now=current(folder).since + 60, **more)
    finally:
        place.close()


def test_the_model_says_what_the_status_says(folder) -> None:
    """Bars and reasons are those of `moves.view`; a stage that was never lived through is not passed; the chain is checked."""
    seen = read(folder)
    assert [(one.name, one.word) for one in seen.steps] == [("teacher-only", ""), ("shadow", "skipped"), ("canary 10%", "skipped"), ("full", "here")]
    assert [one.state for one in seen.bars] == list(seen.view.bars)
    assert all(one.tone != "pass" for one in seen.bars if not one.state.passed)
    assert [(one.release, one.to, one.ready) for one in seen.options] == [(CANDIDATE, "shadow", True)]
    assert seen.whole
    assert [line.number for line in seen.moves] == sorted((line.number for line in seen.moves), reverse=True)


def test_a_changed_decision_breaks_the_chain_and_is_said(folder) -> None:
    """Whoever rewrites history in the file is found out on the page."""
    import apsw

    connection = apsw.Connection(str(folder / ".overproof" / "project.db"))
    connection.execute("DROP TRIGGER decision_stays")
    connection.execute("UPDATE decision SET actor='Somebody Else' WHERE kind='rollout'")
    connection.close()
    seen = read(folder)
    assert not seen.whole
    assert "doesn't fit the chain" in seen.chain


def test_a_person_promotes_and_rolls_back_in_a_browser(page, folder) -> None:
    """With a name and a confirmation; saying no changes nothing; each move is in the store and in the log of decisions under the name."""
    site = Site(folder)
    try:
        page.goto(f"{site.url}/ui/{TASK}/rollout")
        card = page.locator(".card", has_text=CANDIDATE).first
        card.get_by_label("Your name").first.fill("Ada <i>King</i>")
        card.get_by_role("button", name="Promote to shadow").click()
        page.get_by_role("button", name="No", exact=True).click()
        assert current(folder).stage == "full"
        card.get_by_role("button", name="Promote to shadow").click()
        page.get_by_role("button", name="Yes, do it").click()
        page.locator("#said", has_text="is at shadow").wait_for()
        state = current(folder)
        assert (state.release_id, state.stage, state.by) == (CANDIDATE, "shadow", "Ada <i>King</i>")
        assert page.locator("ol.track li[aria-current]").inner_text().startswith("● shadow")
        assert page.locator(".card.back").get_by_label("Your name").input_value() == "Ada <i>King</i>"  # kept in this browser
        page.locator(".card.back").get_by_label("Why").fill("it was a rehearsal")
        page.get_by_role("button", name="Roll back").click()
        page.get_by_role("button", name="Yes, do it").click()
        page.locator("#said", has_text="The teacher answers alone").wait_for()
        assert (current(folder).stage, current(folder).why) == ("teacher-only", "it was a rehearsal")
        assert "it was a rehearsal" in page.get_by_role("region", name="Moves so far").inner_text()
    finally:
        site.stop()


def test_a_refused_promotion_says_why_and_changes_nothing(page, folder) -> None:
    """Straight after the first stage the next one has no evidence: the reason is on the page, the stage stays; with a reason it goes."""
    with open_store(folder) as store:
        moves.promote(store, load_project(folder / "overproof.toml"), by="Ada King", release_id=CANDIDATE)
    before = current(folder)
    site = Site(folder)
    try:
        page.goto(f"{site.url}/ui/{TASK}/rollout")
        card = page.locator(".card", has_text="On to canary 10%").first
        card.get_by_label("Your name").first.fill("Ada King")
        card.get_by_role("button", name="Promote to canary 10%").click()
        page.get_by_role("button", name="Yes, do it").click()
        page.locator("#failed", has_text="not promoted to canary 10%").wait_for()
        assert current(folder) == before
        card.get_by_text("Without the evidence").click()
        card.get_by_label("Your name").last.fill("Ada King")
        card.get_by_label("Reason").fill("the shop is closed and nobody writes")
        card.get_by_label("I know that the evidence is missing").check()
        card.get_by_role("button", name="Force it").click()
        page.get_by_role("button", name="Yes, do it").click()
        page.locator("#said", has_text="is at canary 10%").wait_for()
        assert "forced: the shop is closed" in current(folder).why
    finally:
        site.stop()


def test_nothing_moves_without_name_reason_scope_or_an_up_to_date_page(folder) -> None:
    """Each of them is refused by the server, not only by the form; the name carries the key."""
    with open_store(folder) as store:
        keys = {scope: store.keys.add(scope, scopes={scope}) for scope in ("read", "promote")}
    before = current(folder)
    site = Site(folder)
    try:
        path, good = f"{site.url}/ui/{TASK}/rollout/promote", {"by": "Ada King", "epoch": str(before.epoch), "release": CANDIDATE, "to": "shadow"}
        reader, text = opened(site, keys["read"].secret)
        assert "Promote to" not in text
        assert get(path, headers=reader, body=good)[0] == 403
        mover, _ = opened(site, keys["promote"].secret)
        for change in ({"by": " "}, {"epoch": str(before.epoch - 1)}, {"to": "canary 99%"}, {"release": "nowhere"}, {"force": True, "why": ""}, {"by": 7}):
            status, _, said = get(path, headers=mover, body={**good, **change})
            assert status == 409, (change, said)
        assert current(folder) == before
        assert get(path, headers=mover, body=good)[0] == 200
        assert current(folder).by == f"Ada King (key {keys['promote'].key.id})"
        assert get(f"{site.url}/ui/{TASK}/rollout/back", headers=mover, body={"by": "Ada King", "epoch": str(before.epoch)})[0] == 409
    finally:
        site.stop()
