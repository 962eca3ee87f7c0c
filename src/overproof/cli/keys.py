"""The verb that makes, lists and revokes the keys of the gateway's callers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, DataError

if TYPE_CHECKING:
    from overproof.store.keys import ApiKey, Scope

SCOPES = ("invoke", "read", "review", "promote", "admin")  # as in store.keys, which help must not load


@click.command(short_help="Make, list or revoke keys of the gateway.")
@click.argument("action", type=click.Choice(["add", "list", "revoke"]))
@click.argument("name", default="")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="add: what the key may do; again for more. invoke where absent.")
@click.option("--days", type=float, default=None, help="add: until it expires; never where absent.")
@verb
def keys(door: Door, **given: Any) -> int:
    """Keys with which callers of `overproof serve` name themselves; a running gateway follows within a second.

    NAME is whose the key is (add), or the key's id (revoke). The key is shown once, and only its hash is kept.
    """
    from overproof.store.project_store import open_store

    scopes: tuple[Scope, ...] = given["scopes"]
    action, name = given["action"], given["name"].strip()
    if (action == "list") == bool(name) or (action != "add" and (scopes or given["days"] is not None)):
        raise DataError(
            f"`keys {action}` doesn't go with what was given",
            next_action="overproof keys add NAME --scope invoke [--days 90] | list | revoke ID",
        )
    project = door.load()
    by = project.owner.name if project.owner else ""
    with open_store(project.root) as store:
        if action == "list":
            found = store.keys.all()
            door.emit([_body(key) for key in found], *(_table(found) if found else ["no keys; `overproof keys add NAME` makes one"]))
        elif action == "add":
            made = store.keys.add(name, scopes or ("invoke",), days=given["days"])
            body = _body(made.key)
            store.decisions.append("key added", actor=by, subject=made.key.id, body=body)
            door.emit({**body, "key": made.secret}, f"key {made.key.id} for {_plain(name)} ({body['scopes']}); it is not shown again:", Path(made.secret))
        else:
            key = store.keys.revoke(name)
            store.decisions.append("key revoked", actor=by, subject=key.id, body=_body(key))
            door.emit(_body(key), f"key {key.id} ({_plain(key.name)}) is revoked")
    return EXIT_PASS


def _body(key: ApiKey) -> dict[str, Any]:
    times = {"created": key.created, "expires": key.expires, "revoked": key.revoked}
    body = {"id": key.id, "name": key.name, "scopes": " ".join(s for s in SCOPES if s in key.scopes)}
    return {**body, **{what: None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") for what, at in times.items()}}


def _table(found: tuple[ApiKey, ...]) -> list[Any]:
    from rich.markup import escape

    from overproof.cli.tables import grid

    table = grid("Keys", "id", "name", "may", "made", "expires", "revoked")
    for key in found:
        body = _body(key)
        table.add_row(*(escape(str(body[column] or "-").removesuffix("+00:00")) for column in ("id", "name", "scopes", "created", "expires", "revoked")))
    return [table]


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
