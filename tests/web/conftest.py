"""What tests of pages stand on: a project with a whole history, the pages served as people start them, a real browser."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests import northlane
from tests.browsers import chromium

from overproof.project import load_project
from overproof.web.catching_up import take_in
from overproof.web.place import Place
from overproof.web.table import VIEWS


@pytest.fixture(scope="session")
def northlane_folder(tmp_path_factory):
    """Read only: `copied` makes one that a test may change."""
    return northlane.walked(tmp_path_factory)[0]


@pytest.fixture(scope="module")
def project_folder(northlane_folder, tmp_path_factory):
    """A copy for the tests of one file, which they may change."""
    return northlane.copied(northlane_folder, tmp_path_factory.mktemp("web") / "inbox")


def apart(work, *given):
    """Do something in a thread of its own: a browser's loop runs in this one, and a run needs another."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(work, *given).result()


class Site:
    """`overproof web` as people start it."""

    def __init__(self, *folders, more=()):
        also = [part for folder in folders[1:] for part in ("--also", str(folder))]
        command = [sys.executable, "-m", "overproof.cli", "web", "--project", str(folders[0]), "--port", "0", *also, *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        line = self.process.stdout.readline()
        if "listening on " not in line:
            raise RuntimeError(line + self.process.communicate(timeout=30)[1])
        self.url = line.split("listening on ")[1].strip().removesuffix("/ui")

    def stop(self):
        self.process.terminate()
        return self.process.communicate(timeout=30)[1]


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer."""

    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(NoRedirect)


def get(url, *, headers=None, body=None):
    """(status, headers, text) of one request; a body makes it a POST of JSON."""
    data = None if body is None else json.dumps(body).encode()
    sent = {"content-type": "application/json"} if data is not None else {}
    asked = urllib.request.Request(url, data=data, headers={**sent, **(headers or {})})
    try:
        with OPENER.open(asked, timeout=30) as found:
            return found.status, found.headers, found.read().decode()
    except urllib.error.HTTPError as found:
        return found.code, found.headers, found.read().decode()


@pytest.fixture(scope="module")
def site(project_folder):
    """The pages over this file's copy."""
    running = Site(project_folder)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser():
    """Chromium; for one file, since its loop is this thread's for as long as it runs."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def place(project_folder):
    """The walked project, its log in the index."""
    opened = Place(load_project(project_folder))
    while take_in(opened.store, opened.project.task.output):
        pass
    yield opened
    opened.close()


@pytest.fixture
def page(browser):
    """A fresh page on a laptop's screen; a script's error, a refused resource or a request outside fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tab = context.new_page()
    wrong = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" and "Content Security Policy" in said.text else None)
    tab.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(("http://127.0.0.1", "data:")) else None)
    yield tab
    context.close()
    assert not wrong


def paths(task):
    """Every page that needs no more than a task."""
    return ["/ui" + one.path.rstrip("/").replace("{task}", task) for one in VIEWS if one.method == "GET" and one.page and one.path.count("{") == one.path.count("{task}")]
