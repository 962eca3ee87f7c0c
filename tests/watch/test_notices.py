"""Notices: one for each thing, delivered until it succeeds, and never with more than people may read."""

import json
from datetime import timedelta

import pytest
from tests.channels.servers import Mailbox, saying, serving
from tests.watch.projects import NOON, alarm, parts, project_in, reading, serve_release, trigger

from overproof.channels.webhook import signature
from overproof.data import ExampleShown
from overproof.store.project_store import open_store
from overproof.watch import notices
from overproof.watch.parts import Followed, Found
from overproof.watch.turn import watch_once

FINE = b"HTTP/1.1 200 OK\r\n\r\n"
LOOK = {
    "monitors": lambda *_, **__: Found(readings=(reading(),), alarms=(alarm(),), notes=("The teacher ends in 40 days.",)),
    "drifts": lambda *_, **__: Found(examples={"overheating battery": (ExampleShown(request_id="q9", text="it got hot"),)}),
    "triggers": lambda *_, **__: Followed(triggers=(trigger(state="done", outcome="the rollout is held"),)),
}


def lines(store) -> list[dict]:
    file = store.home / notices.LOG_FILE
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def hooked(port: int, more: str = "") -> str:
    return f'[notify]\nwebhook = "http://127.0.0.1:{port}/hook"\nwebhook_allow_private = true\n{more}'


def test_each_alarm_trigger_and_day_is_told_once(tmp_path) -> None:
    """Three passes on a day and one on the next: one notice for the alarm, one for the trigger, one summary a day."""
    project = project_in(tmp_path)
    with open_store(tmp_path) as store:
        serve_release(store, tmp_path)
        for hours in (0, 1, 2, 24):
            watch_once(store, project, now=NOON + timedelta(hours=hours), parts=parts(**LOOK))
        told = [(line["kind"], line["id"]) for line in lines(store)]
    assert sorted(told) == [
        ("alarm", "alarm:a1"), ("summary", "summary:routing:2026-11-20"), ("summary", "summary:routing:2026-11-21"), ("trigger", "trigger:t1"),
    ]  # fmt: skip


def test_the_summary_has_figures_money_news_and_dates(tmp_path) -> None:
    """Per slice with interval and n; what is new as messages; notes; what was done."""
    project = project_in(tmp_path)
    with open_store(tmp_path) as store:
        serve_release(store, tmp_path)
        watch_once(store, project, now=NOON, parts=parts(**LOOK))
        text = next(line["text"] for line in lines(store) if line["kind"] == "summary")
    for part in ("1 alarm open, no trigger open", "Among paying customers", "the rollout is held", "all traffic, disagreement: 0.03 (0.02 to 0.05) against 0.05, n=500, quiet",
                 "overheating battery", '"it got hot"', "The teacher ends in 40 days.", "0.00 USD this month"):  # fmt: skip
        assert part in text, text


def test_no_summary_where_none_is_wanted(tmp_path) -> None:
    """Alarms are told all the same."""
    project = project_in(tmp_path, '[notify]\nsummary = "off"\n')
    with open_store(tmp_path) as store:
        serve_release(store, tmp_path)
        watch_once(store, project, now=NOON, parts=parts(**LOOK))
        assert {line["kind"] for line in lines(store)} == {"alarm", "trigger"}


def test_what_leaves_the_house_is_redacted_whatever_the_policy(tmp_path) -> None:
    """A telephone number and a key in an example are in no channel, though the project keeps its texts as they came."""
    key = "sk-proj-abcdefghijklmnopqrstuvwx0123456789AB"
    bad = alarm(examples=(ExampleShown(request_id="q", text=f"call +49 151 23456789, my key {key}", said="delivery", truth="billing"),))
    with serving(saying(FINE)) as server:
        project = project_in(tmp_path, '[privacy]\nmode = "off"\nreason = "test"\n' + hooked(server.port))
        with open_store(tmp_path) as store:
            serve_release(store, tmp_path)
            watch_once(store, project, now=NOON, parts=parts(monitors=lambda *_, **__: Found(alarms=(bad,))))
            everything = (store.home / notices.LOG_FILE).read_bytes() + b"".join(server.heard)
    assert b"23456789" not in everything
    assert b"abcdefghijklmnopqrstuvwx" not in everything
    assert b"delivery / billing" in everything


def test_the_webhook_gets_the_signed_body(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature is of what arrives, under the variable's secret; without the variable nothing is sent and the log says so."""
    with serving(saying(FINE)) as server:
        project = project_in(tmp_path, hooked(server.port, 'webhook_secret_env = "HOOK_SECRET"\n'))
        with open_store(tmp_path) as store:
            report = watch_once(store, project, now=NOON, parts=parts())
            assert report.notes == ("not delivered to webhook: the environment variable 'HOOK_SECRET' is not set",)
            assert server.connections == 0
            monkeypatch.setenv("HOOK_SECRET", "s3cret")
            assert watch_once(store, project, now=NOON + timedelta(minutes=2), parts=parts()).notes == ()
        head, _, body = server.heard[0].partition(b"\r\n\r\n")
        said = next(line.split(b": ")[1].decode() for line in head.split(b"\r\n") if line.startswith(b"X-Overproof-Signature"))
        at = int(said.partition(",")[0].removeprefix("t="))
        assert said == signature(body, secret="s3cret", at=at)
        assert json.loads(body)["id"] == "summary:routing:2026-11-20"
        assert b"s3cret" not in server.heard[0]


def test_a_channel_that_is_down_gets_everything_later_and_holds_nobody_up(tmp_path) -> None:
    """One try a pass, however many notices wait; growing pauses; the log and the mail go on; what arrives arrives once."""
    box = Mailbox(offers_tls=False)
    mail = f'email_to = ["ana@shop.example"]\nemail_from = "o@shop.example"\nsmtp_host = "127.0.0.1"\nsmtp_port = {box.port}\nsmtp_security = "none"\n'
    with serving(saying(b"HTTP/1.1 503 no\r\n\r\n")) as down:
        project = project_in(tmp_path, hooked(down.port, mail))
        with open_store(tmp_path) as store:
            serve_release(store, tmp_path)
            report = watch_once(store, project, now=NOON, parts=parts(**LOOK))
            assert report.blind == ()
            assert report.notes[-1] == "not delivered to webhook: webhook at 127.0.0.1 answered HTTP 503"
            assert down.connections == 1
            assert (len(lines(store)), len(box.mails)) == (3, 3)
            tries = []
            for minute in range(1, 60):
                notices.deliver(store, project, now=NOON + timedelta(minutes=minute))
                tries.append(down.connections)
            assert tries[-1] == 3 * 4, "each notice at once or a minute later, then after 1, 5 and 30 minutes more"
            with serving(saying(FINE)) as up:
                again = project_in(tmp_path, hooked(up.port, mail))
                for hours in range(1, 5):
                    notices.deliver(store, again, now=NOON + timedelta(hours=hours))
                got = [json.loads(one.partition(b"\r\n\r\n")[2])["id"] for one in up.heard]
            assert sorted(got) == ["alarm:a1", "summary:routing:2026-11-20", "trigger:t1"]
            assert (len(lines(store)), len(box.mails)) == (3, 3)


def test_a_notice_that_nobody_takes_is_given_up_and_said(tmp_path) -> None:
    """After some days; the last note says so."""
    with serving(saying(b"HTTP/1.1 500 no\r\n\r\n")) as down:
        project = project_in(tmp_path, hooked(down.port))
        with open_store(tmp_path) as store:
            notes = list(watch_once(store, project, now=NOON, parts=parts()).notes)
            for half_day in range(1, 30):
                notes += notices.deliver(store, project, now=NOON + timedelta(hours=12 * half_day))
            assert down.connections == notices.MOST_TRIES
            assert notes[-1].endswith(f"given up after {notices.MOST_TRIES} tries")
            assert store.watching.due(NOON.timestamp() + 1e9) == []


def test_a_channel_that_was_taken_out_of_the_file_is_dropped(tmp_path) -> None:
    """What waited for it waits no longer."""
    with serving(saying(b"HTTP/1.1 500 no\r\n\r\n")) as down, open_store(tmp_path) as store:
        watch_once(store, project_in(tmp_path, hooked(down.port)), now=NOON, parts=parts())
        notices.deliver(store, project_in(tmp_path), now=NOON + timedelta(hours=1))
        assert store.watching.due(NOON.timestamp() + 1e9) == []


def test_slow_channels_end_with_the_pass_s_budget(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking comes first: when time is up the rest waits, and nothing is lost."""
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(notices.time, "monotonic", lambda: next(clock))
    with serving(saying(FINE)) as server:
        project = project_in(tmp_path, hooked(server.port))
        with open_store(tmp_path) as store:
            serve_release(store, tmp_path)
            report = watch_once(store, project, now=NOON, parts=parts(**LOOK))
            assert "time is up" in report.notes[-1]
            assert server.connections < 3
            for hours in (1, 2, 3):
                notices.deliver(store, project, now=NOON + timedelta(hours=hours))
            assert len(server.heard) == 3


def test_trying_the_channels_out_writes_no_outbox(tmp_path) -> None:
    """Each channel with what went wrong; one that is down stops none."""
    project = project_in(tmp_path, hooked(1))
    with open_store(tmp_path) as store:
        said = notices.try_out(store, project, now=NOON)
        assert said["log"] == ""
        assert "webhook at 127.0.0.1" in said["webhook"]
        assert store.watching.notices("routing") == []
        assert [line["kind"] for line in lines(store)] == ["test"]


def test_a_webhook_that_leads_inwards_is_refused_when_it_is_used(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's check sees the name alone; what it leads to is seen when it is resolved."""
    project = project_in(tmp_path, '[notify]\nwebhook = "https://hooks.shop.example/x"\n')
    import socket

    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))])
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("connected"))
    with open_store(tmp_path) as store:
        assert "leads to a private address" in notices.try_out(store, project, now=NOON)["webhook"]
