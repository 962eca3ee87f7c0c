"""The shop of `overproof demo --loop`: sends each message to the gateway as its software would, at the message's own time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from overproof.data import Request, digest_of
from overproof.errors import StoreError, TeacherError
from overproof.teachers import messages_for

if TYPE_CHECKING:
    from overproof.project import Project
    from overproof.serve.app import App
    from overproof.serve.asgi import Message

PATH = "/v1/chat/completions"
ATTRIBUTES = ("channel", "tier", "language")
LOAD_S, POLL_S = 60.0, 0.05
OK = 200


def seconds_at(stamp: str) -> float:
    """
    A time of the inbox.

    Args:
        stamp: ISO 8601 in UTC.

    Returns: seconds since 1970.
    """
    return datetime.fromisoformat(stamp).timestamp()


class Shop:
    """
    A whole gateway, without the socket that it would listen at, and the software that calls it. `open_shop` makes one.

    Args:
        project: names teacher and upstream.
        app: the gateway, whose clock reads `times`.
        times: the present, in seconds since 1970, as its only item.
        runner: of the gateway's event loop, which stands still between two calls.
    """

    def __init__(self, project: Project, app: App, times: list[float], runner: asyncio.Runner) -> None:
        self._project, self._app, self._times, self._runner = project, app, times, runner
        self.sent: dict[str, Mapping[str, Any]] = {}
        """The gateway's id of a request to the message that it was about."""

    def serve(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """
        Send messages one after the other, each at its own time; all their rows are in the log on return.

        Args:
            messages: of the inbox.

        Raises: TeacherError where the gateway didn't answer one.
        """

        async def day() -> None:
            for one in messages:
                await self._call(one)
            await self._app.gateway.settle()

        self._runner.run(day())

    def follow(self, release_id: str) -> None:
        """
        Wait until the gateway serves a release.

        Args:
            release_id: which one.

        Raises: StoreError where it doesn't come up.
        """
        station = self._app.stations[0]

        async def wait() -> None:
            for _ in range(round(LOAD_S / POLL_S)):
                if station.live.current.position.release == release_id:
                    return
                await asyncio.sleep(POLL_S)
            raise StoreError(
                f"the gateway doesn't serve release {release_id!r}: {station.live.refused or 'it was not loaded in time'}",
                next_action="look at `overproof status`",
            )

        self._runner.run(wait())

    async def _call(self, message: Mapping[str, Any]) -> None:
        self._times[0] = seconds_at(message["ts"])
        # Byte for byte what the run asks the teacher: so the answer that comes back is a label already.
        request = Request(id="", fields={"text": message["text"]})
        table = self._project.teacher
        body = json.dumps({
            "model": table.model, "messages": [{"role": m.role, "content": m.content} for m in messages_for(self._project.task, request)],
            "stream": False, "max_tokens": table.max_tokens, "temperature": table.temperature,
        }).encode()  # fmt: skip
        headers = [(f"x-overproof-attr-{name}", str(message[name])) for name in ATTRIBUTES]
        headers += [("host", "127.0.0.1"), ("content-type", "application/json"), ("content-length", str(len(body)))]
        headers += [("x-northlane-customer", str(message["id"]))]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": "POST", "path": PATH,
            "raw_path": PATH.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 4000),
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }  # fmt: skip
        given, heads = [body], []

        async def receive() -> Message:
            if given:
                return {"type": "http.request", "body": given.pop(), "more_body": False}
            await asyncio.Event().wait()  # the caller stays until it has its answer
            return {"type": "http.disconnect"}

        async def send(event: Message) -> None:
            if event["type"] == "http.response.start":
                heads.append(event)

        await self._app(scope, receive, send)
        if not heads or heads[0]["status"] != OK:
            status = heads[0]["status"] if heads else "nothing"
            raise TeacherError(f"the gateway answered {status} to message {message['id']!r}", next_action="run the demo again in another folder")
        told = dict(heads[0]["headers"])
        self.sent[told[b"x-overproof-request-id"].decode()] = message


@contextlib.contextmanager
def open_shop(project: Project, *, at: float) -> Iterator[Shop]:
    """
    The gateway of a project, in a loop of its own.

    Args:
        project: whose teacher can be reached.
        at: when it starts, in seconds since 1970.

    Returns: the shop, for the length of the block.
    """
    from overproof.serve.app import App

    times = [at]
    numbers = itertools.count()  # which rows are drawn hangs on their ids: with the same ones every demo is the same
    app = App([project], host="127.0.0.1", clock=lambda: times[0], ids=lambda: f"req_{digest_of(next(numbers))[:24]}")
    app.load()
    with asyncio.Runner() as runner:
        try:
            yield Shop(project, app, times, runner)
        finally:
            runner.run(app.close())
