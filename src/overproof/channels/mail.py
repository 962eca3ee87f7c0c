"""One mail through the owner's relay: encrypted, or a relay on this machine; no text can become a header."""

from __future__ import annotations

import contextlib
import ipaddress
import smtplib
import socket
import ssl
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as MAIL
from typing import Literal

from overproof.channels import Lifeline, within
from overproof.errors import NoticeError

MOST_SUBJECT = 120
_FIX = "mend [notify]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Relay:
    """Who takes mail."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    """"none" only for a relay on this machine."""
    user: str = ""
    """No login where empty."""
    password: str = ""
    tls: ssl.SSLContext | None = None
    """Trust of its own, for a private authority; the system's where None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """A mail to one person."""

    sender: str
    to: str
    subject: str
    """Cut and made one line."""
    text: str
    id: str
    """Same id, same mail: what came twice is shown once."""


def letter_of(letter: Letter) -> EmailMessage:
    """
    A letter as it goes over the wire.

    Args:
        letter: what to send.

    Returns: the message.
    Raises: NoticeError for an address that is none.
    """
    mail = EmailMessage(policy=MAIL)
    try:
        mail["From"], mail["To"] = _address(letter.sender), _address(letter.to)
        mail["Subject"] = " ".join("".join(c if c.isprintable() else " " for c in letter.subject).split())[:MOST_SUBJECT]
        mail["Message-ID"] = f"<{''.join(c if c.isalnum() and c.isascii() else '-' for c in letter.id)}@overproof.invalid>"
        mail["Auto-Submitted"] = "auto-generated"
    except (ValueError, MessageError, IndexError) as error:
        raise NoticeError("[notify] email_to or email_from holds no plain address", next_action=_FIX) from error
    mail.set_content(letter.text.replace("\r\n", "\n").replace("\r", "\n"), charset="utf-8")
    return mail


def send(relay: Relay, letter: Letter, *, timeout_s: float) -> None:
    """
    Hand one letter to the relay.

    Args:
        relay: who takes it.
        letter: what to send, and to whom.
        timeout_s: deadline from resolving to the relay's last word.

    Raises: NoticeError where the relay is not there, offers no encryption though it must, or refuses.
    """
    mail, where = letter_of(letter), f"mail through {relay.host}"

    def hand_over(line: Lifeline) -> None:
        try:
            with _open(relay, timeout_s) as smtp:
                if smtp.sock is not None:
                    line.hold(smtp.sock)
                if relay.security == "starttls":
                    smtp.starttls(context=relay.tls or ssl.create_default_context())
                if relay.user:
                    smtp.login(relay.user, relay.password)
                smtp.send_message(mail)
        except smtplib.SMTPException as error:  # an OSError too
            raise _fault(error, where) from error

    within(timeout_s, hand_over, where=where)


def _fault(error: smtplib.SMTPException, where: str) -> NoticeError:
    """In words of our own: a relay's may quote the mail."""
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return NoticeError(f"{where}: the relay does not offer STARTTLS, or no login", next_action=_FIX)
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return NoticeError(f"{where}: the login was refused", next_action="mend what smtp_user_env and smtp_password_env name")
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return NoticeError(f"{where}: the recipient was refused", next_action=_FIX)
    code = getattr(error, "smtp_code", None)
    said = f"answered {code}" if code is not None else f"failed: {type(error).__name__}"
    return NoticeError(f"{where} {said}", next_action="look at the relay's log; it is tried again")


def _open(relay: Relay, timeout_s: float) -> smtplib.SMTP:
    if relay.security == "tls":
        return smtplib.SMTP_SSL(relay.host, relay.port, timeout=timeout_s, context=relay.tls or ssl.create_default_context())
    if relay.security == "starttls":
        return smtplib.SMTP(relay.host, relay.port, timeout=timeout_s)
    found = socket.getaddrinfo(relay.host, relay.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    if not addresses or not all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in addresses):
        raise NoticeError(f'{relay.host!r} is not this machine; smtp_security = "none" sends nothing there', next_action=_FIX)
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return smtplib.SMTP(address, relay.port, timeout=timeout_s)
    return smtplib.SMTP(addresses[-1], relay.port, timeout=timeout_s)


def _address(text: str) -> Address:
    if not text.isprintable():
        raise ValueError("line break")
    return Address(addr_spec=text)
