"""The verb that shows the pages."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, MissingExtra


@click.command(short_help="The dashboard and the review desk, in a browser.")
@click.option("--also", "also", multiple=True, type=click.Path(path_type=Path), help="A further project, for its task.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; others than this machine's need keys.")
@click.option("--port", default=8790, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 for a free one.")
@verb
def web(door: Door, also: tuple[Path, ...], host: str, port: int) -> int:
    """Show what each task's student does, why it may be trusted, and what waits for people. Changes nothing by itself."""
    try:
        from overproof.serve.server import serve as run
        from overproof.web.app import Web
    except ModuleNotFoundError as error:
        raise MissingExtra("overproof web", extra="serve") from error
    from overproof.project import load_project

    app = Web([door.load(), *(load_project(path) for path in also)], host=host)

    def started(number: int) -> None:
        app.follow()
        click.echo(f"listening on http://{f'[{host}]' if ':' in host else host}:{number}/ui")
        sys.stdout.flush()

    run(app, host=host, port=port, on_started=started)
    return EXIT_PASS
