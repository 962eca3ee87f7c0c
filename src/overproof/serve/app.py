"""The gateway put together: from project files to an application that a server can run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from overproof.errors import DataError
from overproof.project import Project
from overproof.serve.admission import Admission
from overproof.serve.asgi import App as ASGIApp
from overproof.serve.asgi import HttpScope, Receive, Send
from overproof.serve.gateway import Gateway
from overproof.serve.guard import Guard, limits_of
from overproof.serve.keeping import Keeping, Log, LogProcess
from overproof.serve.keys import Keyring, refuse_open_bind
from overproof.serve.manage import Manage
from overproof.serve.metrics import Metrics
from overproof.serve.station import Station, request_id
from overproof.serve.tasks import Tasks
from overproof.serve.telemetry import telemetry
from overproof.store.project_store import Store, open_store


class App:
    """
    The whole gateway as one ASGI application.

    Args:
        projects: the first one's [gateway] says how it listens; its log takes what no task is recognised in.
        host: address to listen at.
        keep: makes what writes each project's log.
        clock: see `Station`.
        ids: see `Station`.
        beside: made with the keyring, answers what lies under /ui, and / itself.

    Raises: DataError for two projects with one task, or an open address without keys; what `Station` raises.
    """

    def __init__(
        self, projects: Sequence[Project], *, host: str, keep: Callable[[Keeping], Log] = LogProcess,
        clock: Callable[[], float] = time.time, ids: Callable[[], str] = request_id,
        beside: Callable[[Keyring], ASGIApp] | None = None,
    ) -> None:  # fmt: skip
        names = [one.task.name for one in projects]
        if len(set(names)) != len(names):
            raise DataError(f"two projects have the task {max(names, key=names.count)!r}", next_action="give each task a name of its own")
        self.stores: list[Store] = [open_store(one.root) for one in projects]
        self.keyring = Keyring([one.keys for one in self.stores])
        refuse_open_bind(host, self.keyring)
        self.stations = [
            Station(project, store, keyed=self.keyring.required, keep=keep, clock=clock, ids=ids)
            for project, store in zip(projects, self.stores, strict=True)
        ]
        tasks, table = Tasks(projects), projects[0].gateway
        slices = {one.task.name: [piece.name for piece in one.slices] for one in projects}
        metrics = Metrics(names, slices=slices)
        self._telemetry = telemetry()
        self.gateway = Gateway(self.stations, tasks, metrics=metrics, telemetry=self._telemetry)
        manage = Manage(self.stations, tasks, gateway=self.gateway, metrics=metrics, keyring=self.keyring)
        handlers = {
            "chat": self.gateway.call, "completions": self.gateway.call, "passed": self.gateway.passed, "models": manage.models,
            "model": manage.model, "health": manage.health, "ready": manage.ready, "openapi": manage.document, "metrics": manage.figures,
            "feedback": manage.feedback, "status": manage.status, "promote": manage.promote, "rollback": manage.rollback,
        }  # fmt: skip
        inner: ASGIApp = Admission(handlers, keyring=self.keyring, max_concurrent=table.max_concurrent)
        if beside is not None:
            inner = _either(inner, beside(self.keyring))
        limits = limits_of(host, hosts=table.allowed_hosts, origins=table.allowed_origins, max_body_bytes=table.max_body_bytes)
        self._app = Guard(inner, limits=limits)
        self._following: asyncio.Task[None] | None = None

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        """One request."""
        await self._app(scope, receive, send)

    def load(self) -> None:
        """Load the releases that serve; blocks, so it comes before the loop."""
        for one in self.stations:
            one.start()

    def follow(self) -> None:
        """Follow the keys and the writers of the logs; needs the running loop."""
        for one in self.stations:
            one.capture.follow()
        self._following = asyncio.get_running_loop().create_task(self.keyring.follow())

    async def close(self) -> None:
        """Wait for what runs behind answers, commit everything, close all."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        await self.gateway.settle()
        for one in self.stations:
            await one.close()
        await self._telemetry.close()
        for store in self.stores:
            store.close()


def _either(calls: ASGIApp, pages: ASGIApp) -> ASGIApp:
    async def app(scope: HttpScope, receive: Receive, send: Send) -> None:
        path: bytes = scope.get("raw_path", b"")
        await (pages if path in {b"/", b"/ui"} or path.startswith(b"/ui/") else calls)(scope, receive, send)

    return app
