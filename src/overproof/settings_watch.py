"""[watch] and [notify]: how a serving release is watched, and who is told."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from overproof.address import webhook_problem
from overproof.data import Act, Occasion
from overproof.settings import STRICT, Count, Days, Money, Name

ON: Mapping[Occasion, Act] = {
    "drift": "re-distil", "bar": "roll-back", "teacher_changed": "hold", "teacher_ends": "alarm", "review_overdue": "hold",
    "attestation_expired": "hold", "starved": "alarm",
}  # fmt: skip

ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
HOST = re.compile(r"[A-Za-z0-9._:-]+")
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchTable:
    """[watch]: which live answers are audited, what is watched besides, and what may follow."""

    __pydantic_config__ = STRICT
    audit_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the student's answers that the teacher is asked about as well."""
    floor_per_day: Annotated[int, Field(ge=0)] = 25
    """Audits a day of each slice, however little traffic it has."""
    critical_boost: Annotated[float, Field(ge=1, le=100)] = 3.0
    """Factor on the rate of critical slices."""
    audits_per_day: Count = 500
    """The most audits of one day over all slices; above it every slice's rate is lowered alike."""
    usd_per_month: Money = 10.0
    """The most that audits and canary prompts may cost in a calendar month."""
    ask: Literal["teacher", "person", "both"] = "teacher"
    """Who says what would have been right; people answer in `overproof review --queue audit`."""
    person_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the audits that people judge, where they are asked too."""
    deadline: Days = "7d"
    """An audit without a word after so long counts as right, and is shown."""
    false_alarms: Annotated[float, Field(gt=0, le=0.2)] = 0.05
    """The chance that a release that keeps its bars is ever rolled back by an audit, over all slices together."""
    false_page_every: Days = "365d"
    """The least mean time between two pages about nothing, over all signals together."""
    tolerance: Annotated[float, Field(gt=1, le=10)] = 1.25
    """Factor by which a share may rise or fall before it is drift."""
    drift: tuple[Literal["far_share", "ngram_far_share", "shares", "escalation", "confidence", "vocabulary", "clusters", "mmd_sketch"], ...] = (
        "far_share", "ngram_far_share", "shares", "escalation", "confidence", "vocabulary", "clusters", "mmd_sketch",
    )  # fmt: skip
    """What is watched without labels."""
    canaries: Annotated[str, Field(pattern=r"^(off|\d+[dh])$")] = "1d"
    """How often the canary prompts are asked; "off" for never."""
    ends_warning: Days = "60d"
    """So long before the teacher's end of life the countdown begins."""
    on: Mapping[Occasion, Act] = field(default_factory=lambda: dict(ON))
    """What may follow, by occasion: drift, bar, teacher_changed, teacher_ends, review_overdue, attestation_expired, starved = "alarm", "hold", "roll-back" or "re-distil"."""
    on_lapse: Literal["teacher", "hold"] = "teacher"
    """What becomes of a release whose review is more than 30 days overdue: the teacher answers, or it serves on with an alarm a day."""
    refresh_rows: Count = 2000
    """The most new rows that one re-distillation labels."""
    refresh_share: Annotated[float, Field(gt=0, le=1)] = 0.6
    """The most of the new requests that it labels, above a hundred."""
    per_principal: Annotated[float, Field(gt=0, le=1)] = 0.05
    """The most of a re-distillation's new rows that one key or user may have sent."""
    per_group: Count = 3
    """The most new rows out of one group of near-duplicates."""
    challenger_margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    """How much worse than the serving student a new one may be on all requests: no more is to be shown before it may enter shadow."""
    challenger_slice_margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """The same on each critical slice."""

    def act(self, occasion: Occasion) -> Act:
        """What may follow from an occasion."""
        return self.on.get(occasion, ON[occasion])


@dataclass(frozen=True, kw_only=True, slots=True)
class NotifyTable:
    """[notify]: who is told of alarms, beside the log of notices that is always kept."""

    __pydantic_config__ = STRICT
    webhook: str = ""
    """URL that gets a JSON body for each notice; https, and no address of this machine or the local network."""
    webhook_allow_private: bool = False
    """Admit plain http and private addresses as webhook."""
    webhook_secret_env: str = ""
    """Environment variable with the secret that signs the body, as X-Overproof-Signature."""
    email_to: tuple[Name, ...] = ()
    email_from: str = ""
    smtp_host: str = ""
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 587
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    """"none" only for a relay on this machine."""
    smtp_user_env: str = ""
    smtp_password_env: str = ""
    summary: Literal["daily", "off"] = "daily"
    """Whether a summary goes out once a day."""


def watch_problems(watch: WatchTable) -> Iterator[str]:
    """
    What no single key of [watch] shows.

    Args:
        watch: the table.

    Returns: one line each.
    """
    spans = {"deadline": (watch.deadline, 1, 60), "false_page_every": (watch.false_page_every, 7, 3650), "ends_warning": (watch.ends_warning, 1, 730)}
    for key, (text, least, most) in spans.items():
        if not least <= int(text[:-1]) <= most:
            yield f"{key} = {text!r}; from {least}d to {most}d"
    if re.fullmatch(r"0+[dh]", watch.canaries):
        yield f'canaries = {watch.canaries!r}; write "off" for never, or a time as "1d"'
    if watch.floor_per_day > watch.audits_per_day:
        yield f"floor_per_day = {watch.floor_per_day} for each slice is more than audits_per_day = {watch.audits_per_day} for all"


def notify_problems(notify: NotifyTable) -> Iterator[str]:
    """
    What no single key of [notify] shows; a webhook's URL is never repeated, since it is often a secret.

    Args:
        notify: the table.

    Returns: one line each.
    """
    if notify.webhook and (why := webhook_problem(notify.webhook, allow_private=notify.webhook_allow_private)) is not None:
        yield f"webhook {why}"
    if not notify.webhook and (notify.webhook_secret_env or notify.webhook_allow_private):
        yield "webhook is missing; its other keys have no effect without it"
    for key in ("webhook_secret_env", "smtp_user_env", "smtp_password_env"):
        if (name := getattr(notify, key)) and not VARIABLE.fullmatch(name):
            yield f"{key} must be the NAME of a variable in capitals, never the secret itself"
    yield from _mail_problems(notify)


def _mail_problems(notify: NotifyTable) -> Iterator[str]:
    if not notify.email_to:
        if notify.smtp_host or notify.email_from:
            yield "email_to is missing; nobody would get mail"
        return
    for key in ("smtp_host", "email_from"):
        if not getattr(notify, key):
            yield f"{key} is missing; email_to needs it"
    senders = [("email_from", notify.email_from)] if notify.email_from else []
    for key, address in [*(("email_to", one) for one in notify.email_to), *senders]:
        if not ADDRESS.fullmatch(address):
            yield f"{key} {address!r} is not an address; write it as ana@shop.example"
    if len(set(notify.email_to)) < len(notify.email_to):
        yield "email_to names somebody twice"
    if notify.smtp_host and not HOST.fullmatch(notify.smtp_host):
        yield f"smtp_host = {notify.smtp_host!r}; write a name or an address, without port"
    elif notify.smtp_security == "none" and notify.smtp_host and not _is_here(notify.smtp_host):
        yield f'smtp_security = "none" would send to {notify.smtp_host!r} in the clear; only a relay on this machine may have it'
    if bool(notify.smtp_user_env) != bool(notify.smtp_password_env):
        yield "smtp_user_env and smtp_password_env belong together"


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.casefold().rstrip(".") == "localhost"
