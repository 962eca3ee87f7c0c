"""Restarts of whole gateways at one port, under load and while releases are swapped: no request fails, no row is lost."""

import http.client
import json
import signal
import threading
import time

import pytest
from tests.serve.whole import RIGHT, TEXTS, Gateway, Teacher, chat, project, put_at, release, serving

from overproof.store.project_store import open_store


class Caller(threading.Thread):
    """Calls again and again over kept or fresh connections; keeps the id of each whole answer, and what went wrong."""

    def __init__(self, port, *, keep, at=0, pause_s=0.0):
        super().__init__()
        self.port, self.keep, self.at, self.pause_s = port, keep, at, pause_s
        self.ended, self.failed, self.ids, self.releases = threading.Event(), [], [], set()

    def run(self):
        line = None
        while not self.ended.is_set():
            text = TEXTS[self.at % len(TEXTS)]
            self.at += 7
            try:
                line = line or http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                line.request("POST", "/v1/chat/completions", body=json.dumps(chat(text)).encode(), headers={"Content-Type": "application/json"})
                answer = line.getresponse()
                said = json.loads(answer.read())
                assert answer.status == 200, said
                assert said["choices"][0]["message"]["content"] in RIGHT.values()
                self.ids.append(answer.headers["x-overproof-request-id"])
                self.releases.add(answer.headers["x-overproof-release"])
                if answer.will_close or not self.keep:
                    line.close()
                    line = None
            except Exception as error:
                self.failed.append(f"{type(error).__name__}: {error}")
                line.close()
                line = None
            self.ended.wait(self.pause_s)
        if line:
            line.close()


class Load:
    """Several callers at once."""

    def __init__(self, port, *, keeping, fresh, pause_s=0.0):
        self.callers = [Caller(port, keep=i < keeping, at=i, pause_s=pause_s) for i in range(keeping + fresh)]

    def __enter__(self):
        for one in self.callers:
            one.start()
        return self

    def __exit__(self, *_):
        for one in self.callers:
            one.ended.set()
        for one in self.callers:
            one.join(60)

    @property
    def ids(self):
        return [name for one in self.callers for name in list(one.ids)]

    @property
    def failed(self):
        return [text for one in self.callers for text in list(one.failed)]

    @property
    def releases(self):
        return {name for one in self.callers for name in tuple(one.releases) if name}

    def reach(self, count):
        self.until(lambda: len(self.ids) >= count)

    def until(self, holds, within_s=120.0):
        end = time.monotonic() + within_s
        while not holds() and not self.failed:
            assert time.monotonic() < end, len(self.ids)
            time.sleep(0.02)


@pytest.fixture(scope="module")
def teacher():
    one = Teacher()
    yield one
    one.close()


def logged(folder):
    with open_store(folder) as store:
        health = store.captured.health()
        assert health.served == health.captured + health.dropped
        return {record.request.id for record in store.traffic.read()}


def rolling(folder, teacher, *, requests, restarts):
    """Restart again and again under load, with another release put at full each time."""
    project(folder, teacher.url)
    for i, name in enumerate(("r1", "r2")):
        release(folder, name, seed=6 * i)
    put_at(folder, "r1", "canary 50%")
    now = Gateway(folder, "--reuse-port")
    try:
        with Load(now.port, keeping=3, fresh=3, pause_s=0.005) as load:
            for i in range(restarts):
                load.reach(requests * (i + 1) // (restarts + 1))
                following = Gateway(folder, "--reuse-port", port=now.port)
                leaving, now = now, following
                if i < 2:
                    put_at(folder, "r1" if i == 0 else "r2", "full")
                assert leaving.stop() == 0
            load.until(lambda: "r2" in load.releases)
            load.reach(requests)
        assert load.failed == []
    finally:
        code = now.stop()
    assert code == 0
    assert len(load.ids) >= requests
    assert len(set(load.ids)) == len(load.ids)
    assert set(load.ids) - logged(folder) == set()
    return load


def test_rolling_restarts_and_swaps_fail_no_request_and_lose_no_row(tmp_path, teacher):
    """The next gateway listens before the last one hears SIGTERM; two releases come to serve meanwhile; each answered request has its row."""
    assert rolling(tmp_path, teacher, requests=1_000, restarts=2).releases >= {"r1", "r2"}


@pytest.mark.slow
def test_many_restarts_under_ten_thousand_requests(tmp_path, teacher):
    """The same for longer."""
    rolling(tmp_path, teacher, requests=10_000, restarts=12)


def test_sigterm_in_shadow_loses_no_row_that_waits_for_the_students_word(tmp_path, teacher):
    """Rows wait up to a second for the shadow's look; the end of the process waits for them, or writes them without."""
    project(tmp_path, teacher.url)
    release(tmp_path, "r1")
    put_at(tmp_path, "r1", "shadow")
    with serving(tmp_path) as gateway:
        answers = [gateway.chat(TEXTS[i % len(TEXTS)]) for i in range(20)]
        assert gateway.stop() == 0
    assert {one.headers["x-overproof-stage"] for one in answers} == {"shadow"}
    assert {one.id for one in answers} - logged(tmp_path) == set()


@pytest.mark.parametrize("capture", ["before_ack", "group"])
def test_kill_9_loses_only_what_was_on_its_way(tmp_path, teacher, capture):
    """With `before_ack` every answered request has its row, student's and teacher's; with `group` all but those of the last moments. The file is whole."""
    project(tmp_path, teacher.url, gateway=f'capture = "{capture}"')
    if capture == "before_ack":
        release(tmp_path, "r1")
        put_at(tmp_path, "r1", "canary 50%")
    gateway = Gateway(tmp_path)
    try:
        with Load(gateway.port, keeping=4, fresh=0, pause_s=0.002) as load:
            load.reach(150)
            acked = load.ids
            time.sleep(1.0)  # long after these have had their commit; the calls go on
            gateway.stop(signal.SIGKILL)
            for one in load.callers:
                one.ended.set()
    finally:
        gateway.stop(signal.SIGKILL)
    rows = logged(tmp_path)
    lost = set(load.ids) - rows
    assert lost == set() or capture == "group"
    assert set(acked) - rows == set()
    for one in load.callers:  # what is lost is the end: no row is missing before one that is there
        there = [name in rows for name in one.ids]
        assert there == sorted(there, reverse=True)
    assert len(rows - set(load.ids)) <= len(load.callers)  # a row whose answer was on its way
