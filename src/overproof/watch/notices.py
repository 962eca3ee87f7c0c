"""Who is told what: an outbox of notices, each written once, and deliveries that are tried until they succeed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from overproof.channels.mail import Letter, Relay, send
from overproof.channels.webhook import post, signature
from overproof.data import ALL, Alarm, ExampleShown, Reading, Trigger, WatchReport
from overproof.errors import NoticeError, OverproofError
from overproof.privacy.redact import scrub
from overproof.project import Project
from overproof.settings_watch import NotifyTable
from overproof.store.project_store import Store
from overproof.store.watch import Delivery, Notice

LOG, WEBHOOK, EMAIL = "log", "webhook", "email:"
LOG_FILE = "notices.log"
PAUSES_S = (60, 300, 1_800, 7_200, 21_600, 43_200)
"""After the first failure, the second and so on; then the last one again."""
MOST_TRIES = 16  # about five days
TIMEOUT_S = 10.0  # of one delivery
BUDGET_S = 30.0  # of all deliveries of a pass: looking comes first, telling can wait for the next pass
MOST_ROWS = 40  # readings in a summary
MOST_NEW = 10  # new clusters and words in a summary


def tell(store: Store, project: Project, report: WatchReport, *, now: datetime) -> tuple[str, ...]:
    """
    Write a notice for each alarm and trigger that has none yet, one summary a day, and deliver what is due.

    Args:
        store: the project's store.
        project: the loaded project.
        report: what this pass found.
        now: the time.

    Returns: what could not be delivered, one line for each channel.
    """
    channels = channels_of(project.notify)
    for kind, key, body in _notices_of(report, project.notify, now):
        name = f"{kind}:{key}"
        said = {"id": name, "kind": kind, "task": report.task, "release": report.release_id, "at": report.at, **_clean(body)}
        store.watching.note(name, report.task, kind=kind, body=said, channels=channels, at=now.timestamp())
    return deliver(store, project, now=now)


def channels_of(notify: NotifyTable) -> tuple[str, ...]:
    """
    Where notices go.

    Args:
        notify: the owner's choice.

    Returns: the log of notices, the webhook, and each person who gets mail.
    """
    return (LOG, *([WEBHOOK] if notify.webhook else []), *(EMAIL + address for address in notify.email_to))


def deliver(store: Store, project: Project, *, now: datetime) -> tuple[str, ...]:
    """
    Try what is due, each channel until its first failure; what fails is tried again after growing pauses.

    Args:
        store: the project's store.
        project: the loaded project.
        now: the time that pauses are counted from.

    Returns: what could not be delivered, one line for each channel.
    """
    at, began = now.timestamp(), time.monotonic()
    known = channels_of(project.notify)
    faults: dict[str, str] = {}
    for one in store.watching.due(at):
        if one.notice.task != project.task.name or one.channel in faults:
            continue
        if one.channel not in known:
            store.watching.failed(one.notice.id, one.channel, fault="no longer in [notify]", next_at=None)
            continue
        if one.channel != LOG and time.monotonic() - began > BUDGET_S:
            faults[one.channel] = "time is up; the rest waits for the next pass"
            continue
        try:
            _hand_over(store, project.notify, one.channel, one.notice)
        except (OverproofError, OSError) as error:
            faults[one.channel] = _failed(store, one, error, at)
        else:
            store.watching.delivered(one.notice.id, one.channel, at=at)
    return tuple(f"not delivered to {_named(channel)}: {why}" for channel, why in faults.items())


def try_out(store: Store, project: Project, *, now: datetime) -> dict[str, str]:
    """
    Send one harmless notice through every channel at once, past the outbox.

    Args:
        store: the project's store.
        project: the loaded project.
        now: the time.

    Returns: channel to what went wrong, empty where it was delivered.
    """
    at = now.isoformat(timespec="seconds")
    text = f"This is a test of [notify] in {project.file}. Alarms of the task {project.task.name} would come this way."
    body = {"id": f"test:{at}", "kind": "test", "task": project.task.name, "release": None, "at": at, "subject": "a test of the notices", "text": text}
    notice = Notice(id=f"test:{at}", task=project.task.name, kind="test", body=body, at=now.timestamp())
    result: dict[str, str] = {}
    for channel in channels_of(project.notify):
        try:
            _hand_over(store, project.notify, channel, notice)
            result[channel] = ""
        except (OverproofError, OSError) as error:
            result[channel] = _words(error)
    return result


# what is said


def _notices_of(report: WatchReport, notify: NotifyTable, now: datetime) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for alarm in report.alarms:
        yield "alarm", alarm.id, alarm_body(alarm)
    for trigger in report.triggers:
        yield "trigger", trigger.id, trigger_body(trigger)
    if notify.summary == "daily":
        day = now.date().isoformat()
        yield "summary", f"{report.task}:{day}", summary_body(report, day)


def alarm_body(alarm: Alarm) -> dict[str, Any]:
    """
    What a notice of an alarm says.

    Args:
        alarm: which one.

    Returns: subject, text and figures.
    """
    where = "in all traffic" if alarm.slice == ALL else f"in {alarm.slice}"
    lines = [alarm.words, *_shown(alarm.examples), f"Look: overproof watch --alarms. Close: overproof watch --close {alarm.id} --why TEXT"]
    return {
        "subject": f"{alarm.task}: {alarm.signal.replace('_', ' ')} {where}", "text": "\n".join(lines), "slice": alarm.slice,
        "signal": alarm.signal, "since": alarm.since, "value": alarm.value, "low": alarm.low, "high": alarm.high,
        "reference": alarm.reference, "n": alarm.n,
    }  # fmt: skip


def trigger_body(trigger: Trigger) -> dict[str, Any]:
    """
    What a notice of a trigger says.

    Args:
        trigger: which one.

    Returns: subject and text.
    """
    what = trigger.occasion.replace("_", " ")
    done = f"Done: {trigger.outcome}" if trigger.outcome else f"Next: {trigger.act}; dismiss: overproof watch --dismiss {trigger.id} --why TEXT"
    return {
        "subject": f"{trigger.task}: {what} ({trigger.act})", "text": f"{trigger.why}\n{done}", "occasion": trigger.occasion,
        "act": trigger.act, "state": trigger.state, "slices": list(trigger.slices),
    }  # fmt: skip


def summary_body(report: WatchReport, day: str) -> dict[str, Any]:
    """
    What the daily summary says: what is open, figures per slice, what is new, dates and money.

    Args:
        report: of a pass.
        day: ISO date.

    Returns: subject and text.
    """
    serving = f"release {report.release_id}" if report.release_id else "the teacher alone"
    lines = [f"{day}: {serving} answers; {count(len(report.alarms), 'alarm')} open, {count(sum(t.state == 'open' for t in report.triggers), 'trigger')} open."]
    lines += [f"- {alarm.words}" for alarm in report.alarms]
    lines += [f"- {t.occasion.replace('_', ' ')}: {t.outcome or t.why}" for t in report.triggers]
    lines += ["", "Figures", *(f"- {reading_words(r)}" for r in report.readings[:MOST_ROWS])]
    lines += [f"- and {len(report.readings) - MOST_ROWS} more" if len(report.readings) > MOST_ROWS else ""]
    if report.examples:
        lines += ["", "New"]
        for name, shown in list(report.examples.items())[:MOST_NEW]:
            lines += [f"- {name}", *_shown(shown)]
    lines += ["", *report.notes]
    lines.append(f"Audits: {report.audits_drawn} drawn and {report.audits_labelled} answered in this pass, {report.audits_due} due; {report.spent_usd:.2f} USD this month.")
    return {"subject": f"{report.task}: {count(len(report.alarms), 'alarm')} open on {day}", "text": "\n".join(lines)}


def count(n: int, what: str) -> str:
    """
    A number with its noun.

    Args:
        n: how many.
        what: the noun in the singular.

    Returns: "no alarm", "1 alarm" or "2 alarms".
    """
    return f"{n or 'no'} {what}{'s' if n > 1 else ''}"


def reading_words(reading: Reading) -> str:
    """
    A reading as one line: slice, signal, value, interval, n, bar, state.

    Args:
        reading: one figure.

    Returns: the line.
    """
    where = "all traffic" if reading.slice == ALL else reading.slice
    value = "no figure" if reading.value is None else f"{reading.value:.4g}"
    ends = f" ({reading.low:.4g} to {reading.high:.4g})" if reading.low is not None and reading.high is not None else ""
    against = f" against {reading.reference:.4g}" if reading.reference is not None else ""
    part = f" {reading.part}" if reading.part else ""
    return f"{where}, {reading.signal.replace('_', ' ')}{part}: {value}{ends}{against}, n={reading.n}, {reading.state}"


def _shown(examples: Sequence[ExampleShown]) -> Iterator[str]:
    for one in examples:
        said = f" [{one.said} / {one.truth}]" if one.truth is not None else f" [{one.said}]" if one.said is not None else ""
        yield f'    "{one.text}"{said}'


def _clean(body: Mapping[str, Any]) -> dict[str, Any]:
    """Redacted once more, whatever the project's own policy: a notice leaves the house."""
    return {key: scrub(value) if key in ("subject", "text") else value for key, value in body.items()}


# how it gets there


def _hand_over(store: Store, notify: NotifyTable, channel: str, notice: Notice) -> None:
    ways: Mapping[str, Callable[[], None]] = {LOG: lambda: _log(store, notice), WEBHOOK: lambda: _webhook(notify, notice)}
    if channel.startswith(EMAIL):
        _mail(notify, channel.removeprefix(EMAIL), notice)
    else:
        ways[channel]()


def _log(store: Store, notice: Notice) -> None:
    """One line of JSON at the end of the file, in one write."""
    line = json.dumps(dict(notice.body), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    handle = os.open(store.home / LOG_FILE, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        if os.write(handle, line) < len(line):
            raise OSError(f"{LOG_FILE} took only a part of a line")
        os.fsync(handle)
    finally:
        os.close(handle)


def _webhook(notify: NotifyTable, notice: Notice) -> None:
    body = json.dumps(dict(notice.body), ensure_ascii=False).encode("utf-8", "replace")
    headers = {"X-Overproof-Notice": quote(notice.id)}
    if notify.webhook_secret_env:
        headers["X-Overproof-Signature"] = signature(body, secret=_secret(notify.webhook_secret_env), at=int(time.time()))
    post(notify.webhook, body, headers=headers, allow_private=notify.webhook_allow_private, timeout_s=TIMEOUT_S)


def _mail(notify: NotifyTable, to: str, notice: Notice) -> None:
    relay = Relay(
        host=notify.smtp_host, port=notify.smtp_port, security=notify.smtp_security,
        user=_secret(notify.smtp_user_env) if notify.smtp_user_env else "",
        password=_secret(notify.smtp_password_env) if notify.smtp_password_env else "",
    )  # fmt: skip
    subject, text = str(notice.body.get("subject", notice.kind)), str(notice.body.get("text", ""))
    send(relay, Letter(sender=notify.email_from, to=to, subject=f"[overproof] {subject}", text=text, id=notice.id), timeout_s=TIMEOUT_S)


def _secret(variable: str) -> str:
    found = os.environ.get(variable, "").strip()
    if not found:
        raise NoticeError(f"the environment variable {variable!r} is not set", next_action="set it where the watch runs")
    return found


def _failed(store: Store, one: Delivery, error: Exception, at: float) -> str:
    why = _words(error)
    tries = one.tries + 1
    again = None if tries >= MOST_TRIES else at + PAUSES_S[min(tries, len(PAUSES_S)) - 1]
    store.watching.failed(one.notice.id, one.channel, fault=why, next_at=again)
    return why if again is not None else f"{why}; given up after {tries} tries"


def _words(error: Exception) -> str:
    said = error.what if isinstance(error, OverproofError) else str(getattr(error, "strerror", None) or type(error).__name__)
    return scrub(said.partition("\n")[0])[:300]


def _named(channel: str) -> str:
    """A channel as the notes say it: no address of a person."""
    return "e-mail" if channel.startswith(EMAIL) else channel
