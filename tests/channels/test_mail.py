"""Mail: encrypted or at home, to one person, and no text becomes a header."""

import base64

import pytest
from tests.channels.servers import Mailbox

from overproof.channels.mail import Letter, Relay, letter_of, send
from overproof.errors import NoticeError

SENDER, TO = "overproof@shop.example", "ana@shop.example"


def letter(**given: str) -> Letter:
    return Letter(**{"sender": SENDER, "to": TO, "subject": "hello", "text": "à bientôt\n.\nafter a dot", "id": "alarm:1", **given})


def test_a_letter_goes_over_tls_with_a_login(served, trusted) -> None:
    """STARTTLS before the login and before the mail; what arrives is the text, a line with one dot included."""
    plain = "PLAIN " + base64.b64encode(b"\0u\0p").decode()
    box = Mailbox(tls=served, login=plain)
    send(Relay(host="localhost", port=box.port, security="starttls", user="u", password="p", tls=trusted), letter(), timeout_s=20)
    (mail,) = box.mails
    assert box.secure == [True]
    assert (mail["To"], mail["From"], mail["Subject"]) == (TO, SENDER, "hello")
    assert mail.get_content().replace("\r\n", "\n") == "à bientôt\n.\nafter a dot\n"
    assert mail["Message-ID"] == "<alarm-1@overproof.invalid>"


def test_a_relay_without_starttls_gets_nothing(served, trusted) -> None:
    """Neither mail nor password travels in the clear."""
    box = Mailbox(tls=served, offers_tls=False)
    with pytest.raises(NoticeError, match="does not offer STARTTLS"):
        send(Relay(host="localhost", port=box.port, security="starttls", user="u", password="p", tls=trusted), letter(), timeout_s=20)
    assert box.mails == []
    assert not any(line.startswith(("AUTH", "MAIL")) for line in box.lines)


def test_a_certificate_that_nobody_vouches_for_gets_nothing(served) -> None:
    """STARTTLS with an unknown certificate ends before the login."""
    box = Mailbox(tls=served)
    with pytest.raises(NoticeError):
        send(Relay(host="localhost", port=box.port, security="starttls"), letter(), timeout_s=20)
    assert box.mails == []


def test_a_relay_on_this_machine_may_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no other, whatever its name leads to."""
    box = Mailbox(offers_tls=False)
    send(Relay(host="localhost", port=box.port, security="none"), letter(), timeout_s=20)
    assert (len(box.mails), box.secure) == (1, [False])
    monkeypatch.setattr("smtplib.SMTP", lambda *a, **k: pytest.fail("connected"))
    for host in ("10.0.0.1", "1.1.1.1"):
        with pytest.raises(NoticeError, match="not this machine"):
            send(Relay(host=host, port=25, security="none"), letter(), timeout_s=20)


@pytest.mark.parametrize("bad", ["x\r\nBcc: eve@x.example", "x\nBcc: eve@x.example", "x\r\n\r\nbody", "x\x00y", "x\u2028Bcc: e", "x\x85Bcc: e"])
def test_no_text_becomes_a_header(bad: str) -> None:
    """A subject with line breaks is one line; an address with one is refused; an id is letters and digits."""
    made = letter_of(letter(subject=bad, id=bad))
    flat = made.as_bytes()
    assert not any(line.lower().startswith(b"bcc") for line in flat.split(b"\r\n"))
    assert set(made.keys()) == {"From", "To", "Subject", "Message-ID", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding", "MIME-Version"}
    for field in ("to", "sender"):
        with pytest.raises(NoticeError, match="no plain address"):
            letter_of(letter(**{field: f"ana@shop.example{bad[1:]}"}))


def test_what_the_relay_refuses_is_told_without_its_words(served) -> None:
    """A refused recipient, a refused login, nobody there."""
    box = Mailbox(rejects="ana")
    with pytest.raises(NoticeError, match="recipient was refused"):
        send(Relay(host="127.0.0.1", port=box.port, security="none"), letter(), timeout_s=20)
    box = Mailbox(login="PLAIN x")
    with pytest.raises(NoticeError, match="login was refused"):
        send(Relay(host="127.0.0.1", port=box.port, security="none", user="u", password="p"), letter(), timeout_s=20)
    box.close()
    with pytest.raises(NoticeError, match="refused"):
        send(Relay(host="127.0.0.1", port=1, security="none"), letter(), timeout_s=20)
