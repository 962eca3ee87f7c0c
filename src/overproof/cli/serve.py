"""The verb that puts the gateway in front of the teacher."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, MissingExtra


@click.command(short_help="Stand in front of the teacher: log, compare, and let the student answer.")
@click.option("--also", "also", multiple=True, type=click.Path(path_type=Path), help="A further project, for its task.")
@click.option("--host", default=None, help="Address to listen at; [gateway] host where absent.")
@click.option("--port", default=None, type=click.IntRange(0, 65535), help="Port; [gateway] port where absent, 0 for a free one.")
@click.option("--reuse-port", is_flag=True, help="Share the port with another gateway, for a restart that nobody notices.")
@click.option("--web", "with_web", is_flag=True, help="Serve the dashboard as well, under /ui.")
@verb
def serve(door: Door, also: tuple[Path, ...], host: str | None, port: int | None, **given: bool) -> int:
    """Serve OpenAI's API in front of the teacher. With no release it passes everything on and logs it."""
    try:
        from overproof.serve.app import App
        from overproof.serve.keys import Keyring
        from overproof.serve.server import serve as run
        from overproof.web.app import Pages
    except ModuleNotFoundError as error:
        raise MissingExtra("overproof serve", extra="serve") from error
    from overproof.project import load_project

    projects = [door.load(), *(load_project(path) for path in also)]
    table = projects[0].gateway
    where, at = host or table.host, table.port if port is None else port
    pages: list[Pages] = []

    def beside(keyring: Keyring) -> Pages:
        pages.append(Pages(projects, keyring=keyring))
        return pages[0]

    app = App(projects, host=where, beside=beside if given["with_web"] else None)
    app.load()

    def started(number: int) -> None:
        app.follow()
        shown = f"[{where}]" if ":" in where else where
        click.echo(f"listening on http://{shown}:{number}")
        if pages:
            click.echo(f"pages at http://{shown}:{number}/ui")
        for one in app.stations:
            release = one.live.current.position.release
            click.echo(f"  {one.name}: {one.live.current.position.stage}{f', release {release}' if release else ', the teacher answers'}; upstream {one.upstream.host}")
        for text in (text for one in app.stations for text in one.problems):
            click.echo(f"  {text}", err=True)
        sys.stdout.flush()

    try:
        run(app, host=where, port=at, on_started=started, reuse_port=given["reuse_port"])
    finally:
        for one in pages:
            one.close_stores()
    return EXIT_PASS
