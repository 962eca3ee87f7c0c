"""Servers of one thread each, which keep what they are told."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage


class Server:
    """Takes one connection after the other and hands each to a function."""

    def __init__(self, talk: Callable[["Server", socket.socket], None], tls: ssl.SSLContext | None = None) -> None:
        self.heard: list[bytes] = []
        self.connections = 0
        self._talk, self._tls = talk, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                wire, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with contextlib.suppress(OSError), wire:
                wire.settimeout(20)
                if self._tls is None:
                    self._talk(self, wire)
                else:
                    with self._tls.wrap_socket(wire, server_side=True) as safe:
                        self._talk(self, safe)

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def serving(talk: Callable[[Server, socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(talk, tls)
    try:
        yield server
    finally:
        server.close()


def saying(*pieces: bytes) -> Callable[[Server, socket.socket], None]:
    """Read one HTTP request, then answer with these pieces."""

    def talk(server: Server, wire: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += wire.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        while len(body) < length:
            body += wire.recv(65536)
        server.heard.append(head + b"\r\n\r\n" + body)
        for piece in pieces:
            wire.sendall(piece)

    return talk


class Mailbox(Server):
    """A small mail server: EHLO, STARTTLS, AUTH PLAIN, MAIL, RCPT, DATA, QUIT."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, offers_tls: bool = True, login: str = "", rejects: str = "") -> None:
        self.mails: list[EmailMessage] = []
        self.secure: list[bool] = []
        self.lines: list[str] = []
        self._context, self._offers, self._login, self._rejects = tls, offers_tls, login, rejects
        super().__init__(_smtp)

    def offers(self, *, secure: bool) -> list[str]:
        return ["mail.test", *(["STARTTLS"] if self._offers and not secure else []), *(["AUTH PLAIN"] if self._login else [])]


def _smtp(box: Mailbox, wire: socket.socket) -> None:
    with contextlib.ExitStack() as stack:
        _converse(box, wire, stack)


def _converse(box: Mailbox, wire: socket.socket, stack: contextlib.ExitStack) -> None:
    secure, logged_in, to = False, not box._login, []
    file = wire.makefile("rb")

    def say(text: str) -> None:
        wire.sendall(text.encode() + b"\r\n")

    say("220 mail.test")
    while line := file.readline():
        box.lines.append(line.decode().strip())
        word, _, rest = box.lines[-1].partition(" ")
        word = word.upper()
        if word == "EHLO":
            *before, last = box.offers(secure=secure)
            for one in before:
                say(f"250-{one}")
            say(f"250 {last}")
        elif word == "STARTTLS":
            say("220 go on")
            wire = stack.enter_context(box._context.wrap_socket(wire, server_side=True))
            file, secure = wire.makefile("rb"), True
        elif word == "AUTH":
            logged_in = rest == box._login
            say("235 welcome" if logged_in else "535 no")
        elif word in ("MAIL", "RCPT", "RSET"):
            to += [rest] if word == "RCPT" else []
            refused = word == "RCPT" and bool(box._rejects) and box._rejects in rest
            say("550 nobody" if refused else "250 fine" if logged_in else "530 who are you")
        elif word == "DATA":
            say("354 go on")
            data = b""
            while (row := file.readline()) != b".\r\n":
                data += row[1:] if row.startswith(b"..") else row
            box.mails.append(message_from_bytes(data, policy=policy.default))
            box.secure.append(secure)
            say("250 taken")
        elif word == "QUIT":
            say("221 bye")
            return
        else:
            say("502 what")
