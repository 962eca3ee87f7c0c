"""The pages as one ASGI application, to stand behind a guard: by itself, or in the gateway under /ui."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from overproof.errors import OverproofError
from overproof.project import Project
from overproof.serve.asgi import Headers, HttpScope, Receive, Send, answer
from overproof.serve.guard import HEADERS, Guard, limits_of, read_body
from overproof.serve.keys import Caller, Keyring, refuse_open_bind
from overproof.web.entry import Entry, cookie
from overproof.web.place import open_places
from overproof.web.render import SAFE, as_json, attached, rendered, static
from overproof.web.table import VIEWS
from overproof.web.view import Ask, Data, Download, NotHere, Page, Query, View

PREFIX: Final = "/ui"
LIVE: Final = b"x-overproof-live"
"""Header by which a page's script asks for what changed, instead of the page."""
_log = logging.getLogger(__name__)
_HTML: Final = (b"content-type", b"text/html; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")
_FRESH: Final = (b"cache-control", b"no-store")


@dataclass(frozen=True, slots=True)
class _Found:
    view: View
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Ready:
    body: bytes
    status: int
    headers: Headers


class Pages:
    """
    Every page, the login, and the pages' own files; wants a guard before it.

    Args:
        projects: checked project files.
        keyring: who may look and decide; made from the projects' own keys where absent.
        clock: Unix time.

    Raises: DataError for two projects with one task; StoreError where a store can't be opened.
    """

    def __init__(self, projects: Sequence[Project], *, keyring: Keyring | None = None, clock: Callable[[], float] = time.time) -> None:
        self.places = open_places(list(projects))
        self.keyring = keyring or Keyring([one.store.keys for one in self.places])
        self._entry = Entry(self.keyring, [one.store.secret() for one in self.places])
        self._clock = clock

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        """One request."""
        headers: Mapping[bytes, bytes] = scope[HEADERS]
        body = await read_body(receive)
        if body is None:
            return
        path = scope["raw_path"].decode("ascii", "replace").rstrip("/") or "/"
        if path == "/":
            await _go(send, PREFIX)
        elif path.startswith(f"{PREFIX}/static/"):
            await _file(send, path.rpartition("/")[2], headers)
        elif path == f"{PREFIX}/login":
            await self._login(scope["method"], headers, body, send)
        elif path == f"{PREFIX}/logout" and scope["method"] == "POST":
            await answer(send, b"{}", headers=[*SAFE, _JSON, cookie("")])
        else:
            await self._view(scope, path, body, send)

    async def _view(self, scope: HttpScope, path: str, body: bytes, send: Send) -> None:
        headers: Mapping[bytes, bytes] = scope[HEADERS]
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        now = self._clock()
        who = self._entry.caller(headers, now)
        if who is None:
            await (_go(send, f"{PREFIX}/login") if method == "GET" and LIVE not in headers else self._no(send, 401, "sign in first", method))
            return
        found = _find(method, path)
        if found is None:
            await self._no(send, 404, "there is no such page", method, who=who)
            return
        if found.view.scope not in who.scopes:
            await self._no(send, 403, f"this key lacks the scope {found.view.scope!r}", method, who=who, to_do="sign in with a key that has it")
            return
        if method == "POST" and not self._entry.may_change(headers):
            await self._no(send, 403, "this page is older than its session", method, who=who, to_do="load it again, then repeat")
            return
        said = _object(body) if method == "POST" else {}
        if said is None:
            await self._no(send, 400, "the body has to be one JSON object", method, who=who)
            return
        places = tuple(one for one in self.places if not who.id or one.source == who.source)
        ask = Ask(places=places, params=found.params, query=Query(scope["query_string"]), caller=who, now=now, body=said)
        try:
            reply = await asyncio.to_thread(self._answered, found.view, ask, headers)
        except NotHere as problem:
            await self._no(send, 404, problem.what, method, who=who, to_do=problem.next_action)
        except OverproofError as problem:
            await self._no(send, 409 if method == "POST" else 503, problem.what, method, who=who, to_do=problem.next_action)
        except Exception as error:  # noqa: BLE001 - one page's failure is an answer, not the end of others
            _log.error("%s failed: %s", found.view.path, type(error).__name__, exc_info=_log.isEnabledFor(logging.DEBUG))
            await self._no(send, 500, "this page failed; the log says where", method, who=who)
        else:
            await answer(send, reply.body, status=reply.status, headers=reply.headers)

    def _answered(self, view: View, ask: Ask, headers: Mapping[bytes, bytes]) -> _Ready:
        """The view's answer as bytes: what goes wrong in a template goes wrong here, where it is still an answer."""
        reply = view.answer(ask)
        if isinstance(reply, Page) and LIVE in headers:
            reply = Data(value=reply.live)
        if isinstance(reply, Page):
            values = {**self._common(ask.caller, headers), "title": reply.title, "live": reply.live, "ask": ask, "now": ask.now, "here": view.path, "task": ask.params.get("task", ""), **reply.values}
            return _Ready(rendered(reply.template, values), reply.status, [*SAFE, _HTML, _FRESH])
        if isinstance(reply, Data):
            return _Ready(as_json(reply.value), reply.status, [*SAFE, _JSON, _FRESH])
        if isinstance(reply, Download):
            return _Ready(reply.body, 200, attached(reply.name, reply.kind))
        return _Ready(b"", 303, [*SAFE, (b"location", reply.to.encode("ascii"))])

    def _common(self, who: Caller | None, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
        """What the frame round every page needs."""
        tasks = [one.name for one in self.places if who is not None and (not who.id or one.source == who.source)]
        menu = [(one.nav, one.path) for one in VIEWS if one.nav and who is not None and one.scope in who.scopes]
        return {"tasks": tasks, "menu": menu, "caller": who, "keyed": self.keyring.required, "token": self._entry.token(headers) if who is not None else ""}

    async def _no(self, send: Send, status: int, what: str, method: str, *, who: Caller | None = None, to_do: str = "") -> None:
        """What went wrong and what to do next: as JSON to scripts, as a page to people."""
        if method != "GET":
            body = as_json({"error": {"message": what, "next": to_do}})
            await answer(send, body, status=status, headers=[*SAFE, _JSON])
            return
        values = {**self._common(who, {}), "title": "Not here" if status == 404 else "Not possible", "what": what, "to_do": to_do, "live": {}, "here": "", "task": "", "now": self._clock()}
        await _html(send, rendered("problem.html", values), status=status)

    async def _login(self, method: str, headers: Mapping[bytes, bytes], body: bytes, send: Send) -> None:
        if method != "POST":
            if self._entry.caller(headers, self._clock()) is not None:
                await _go(send, PREFIX)
                return
            values = {**self._common(None, {}), "title": "Sign in", "live": {}, "here": "", "task": "", "now": self._clock()}
            await _html(send, rendered("login.html", values))
            return
        key = (_object(body) or {}).get("key")
        session = self._entry.opened(key, self._clock()) if isinstance(key, str) else None
        if session is None:
            await self._no(send, 401, "the key is not valid", "POST", to_do="make one with `overproof keys add NAME --scope read`")
            return
        await answer(send, as_json({"next": PREFIX}), headers=[*SAFE, _JSON, cookie(session)])

    def close_stores(self) -> None:
        """Close what was opened."""
        for one in self.places:
            one.close()


class Web:
    """
    The pages by themselves, behind a guard of their own: what `overproof web` serves.

    Args:
        projects: checked project files; the first one's [gateway] names further hosts.
        host: address to listen at.
        clock: Unix time.

    Raises: DataError for an address that others can reach without keys; what `Pages` raises.
    """

    def __init__(self, projects: Sequence[Project], *, host: str, clock: Callable[[], float] = time.time) -> None:
        self.pages = Pages(projects, clock=clock)
        refuse_open_bind(host, self.pages.keyring)
        self._app = Guard(self.pages, limits=limits_of(host, hosts=projects[0].gateway.allowed_hosts))
        self._following: asyncio.Task[None] | None = None

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        """One request."""
        await self._app(scope, receive, send)

    def follow(self) -> None:
        """Follow the keys; needs the running loop."""
        self._following = asyncio.get_running_loop().create_task(self.pages.keyring.follow())

    async def close(self) -> None:
        """Close the stores."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        self.pages.close_stores()


def _object(body: bytes) -> dict[str, Any] | None:
    """A JSON object, which no body at all stands for as well; None for anything else."""
    try:
        found = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _find(method: str, path: str) -> _Found | None:
    parts = path.removeprefix(PREFIX).strip("/").split("/") if path.startswith(PREFIX) else ["?"]
    for view in VIEWS:
        wanted = view.path.strip("/").split("/")
        if view.method != method or len(wanted) != len(parts):
            continue
        if all(have == want or (want.startswith("{") and have) for want, have in zip(wanted, parts, strict=True)):
            return _Found(view, {w[1:-1]: unquote(h) for w, h in zip(wanted, parts, strict=True) if w.startswith("{")})
    return None


async def _html(send: Send, body: bytes, *, status: int = 200) -> None:
    await answer(send, body, status=status, headers=[*SAFE, _HTML, _FRESH])


async def _go(send: Send, to: str) -> None:
    await answer(send, b"", status=303, headers=[*SAFE, (b"location", to.encode("ascii"))])


async def _file(send: Send, name: str, headers: Mapping[bytes, bytes]) -> None:
    del headers
    found = static(name)
    if found is None:
        await answer(send, b"", status=404, headers=list(SAFE))
        return
    await answer(send, found[0], headers=[*SAFE, (b"content-type", found[1].encode()), (b"cache-control", b"max-age=3600")])
