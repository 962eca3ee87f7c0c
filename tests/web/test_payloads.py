"""Whatever somebody sends or writes, the pages show it as text."""

import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import pytest
from tests.web.conftest import Site, get, paths
from tests.web.payloads import PAYLOADS
from tests.web.poisoned import EVIL, TASK

from overproof.web.table import VIEWS

WEB = Path(__file__).parents[2] / "src" / "overproof" / "web"
MOST_PAGES = 90
LOST = quote(EVIL, safe="")
"""An example of an alarm may be of a request that the log no longer holds: then its page says so."""
RAW = re.compile(r"\.(?:inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setHTMLUnsafe|createContextualFragment|\.srcdoc")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / TASK
    subprocess.run([sys.executable, "-m", "tests.web.poisoned", str(folder)], check=True, cwd=WEB.parents[2])
    running = Site(folder)
    for _ in range(60):  # the index of the log is made when somebody first looks
        if get(f"{running.url}/ui/{TASK}/traffic")[2].count("<tr") > 40:
            break
        time.sleep(0.25)
    yield running
    running.stop()


def links(page, base):
    """Pages of ours that this one links to; any other kind of address fails."""
    found = []
    for href in page.eval_on_selector_all("a[href]:not([download])", "all => all.map(a => a.getAttribute('href'))"):
        whole = urlsplit(urljoin(page.url, href))
        assert whole.scheme == "http", href
        assert f"{whole.scheme}://{whole.netloc}" == base, href
        if whole.path.startswith("/ui") and "download" not in whole.path and "export" not in whole.path:
            found.append(whole._replace(fragment="").geturl())
    return found


def kind(url):
    """Pages of one kind differ in their last part or their query: a few of each are enough."""
    whole = urlsplit(url)
    return (whole.path.count("/"), tuple(whole.path.split("/")[3:4]), tuple(sorted(pair.partition("=")[0] for pair in whole.query.split("&"))))


def test_no_payload_runs_or_loads_anything_on_any_page(page, hostile):
    """Over all pages and what they link to: no script of a payload ran, no dialog opened, nothing outside was asked, no policy was broken."""
    page.on("dialog", lambda box: pytest.fail(f"a dialog: {box.message}"))
    waiting, seen, kinds, shown = [hostile.url + path for path in paths(TASK)], set(), {}, set()
    while waiting and len(seen) < MOST_PAGES:
        url = waiting.pop(0)
        if url in seen or kinds.get(kind(url), 0) >= 3:
            continue
        seen.add(url)
        kinds[kind(url)] = kinds.get(kind(url), 0) + 1
        answer = page.goto(url)
        assert answer is not None
        assert answer.status == 200 or url.endswith(LOST), url
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("window.__ran") is None, url
        assert page.locator("main script, main iframe, main object, main embed, main base, main meta, main img[src^='x']").count() == 0, url
        body = page.locator("main").evaluate("main => main.textContent")
        shown |= {one for one in PAYLOADS if one in body}
        waiting += links(page, hostile.url)
    assert len(shown) > len(PAYLOADS) / 2, "most of them have to be shown somewhere, or little was tested"
    assert {one.path.split("/")[2] for one in VIEWS if one.nav} <= {urlsplit(url).path.split("/")[3] for url in seen if urlsplit(url).path.count("/") > 2}


@pytest.mark.parametrize("path", sorted(WEB.rglob("*.js")) + sorted(WEB.rglob("*.html")), ids=lambda p: p.name)
def test_templates_and_scripts_keep_to_what_the_policy_allows(path):
    """No raw HTML, no inline script, style or handler: neither would run, and each is where a mistake begins."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".js":
        assert not RAW.search(text)
        return
    assert not re.search(r"\|\s*safe\b|autoescape\s+false|\bMarkup\b", text)
    assert not re.search(r"<script(?![^>]*\bsrc=\"/ui/static/)", text)
    assert not re.search(r"\sstyle\s*=|\son[a-z]+\s*=\s*[\"']|<style\b", text)
    for quoted in re.findall(r"(?:href|src|data-send|data-next)=(\S)", text):
        assert quoted == '"', "an unquoted attribute ends at the first space of what somebody wrote"
