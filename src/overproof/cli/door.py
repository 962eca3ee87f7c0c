"""What every verb shares: its options, the project behind it, and how results, progress and errors leave the program."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from overproof.errors import OverproofError, ProjectError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from overproof.project import Project

NARROW = 80  # columns without a terminal: what a log or a pipe gets
QUIET_S = 2.0  # work below it shows nothing
TELL_EVERY_S = 10.0  # between two progress lines where there is no terminal


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """The options that each verb has."""

    project: Path
    """overproof.toml or its folder."""
    overrides: tuple[str, ...]
    """"table.key=value" each."""
    as_json: bool
    """Machine output on stdout."""
    debug: bool
    """Tracebacks."""

    @property
    def root(self) -> Path:
        """Folder of the project."""
        return self.project if self.project.is_dir() else self.project.parent

    def load(self) -> Project:
        """The project, with overrides."""
        from overproof.project import load_project

        return load_project(self.project, overrides=self.overrides)

    def emit(self, value: Any, *shown: RenderableType | Path) -> None:
        """
        Hand over a verb's result.

        Args:
            value: what --json prints.
            shown: what a person sees; a path stays on one line.
        """
        if self.as_json:
            click.echo(json.dumps(jsonable(value), ensure_ascii=False, indent=1, allow_nan=False))
            return
        console = console_on(sys.stdout)
        for item in shown:
            if isinstance(item, Path):
                click.echo(str(item))  # never folded: it's for copying
            else:
                console.print(item)


def console_on(stream: TextIO) -> Console:
    """A console that works in 80 columns and without a terminal."""
    from rich.console import Console

    terminal = stream.isatty()
    return Console(file=stream, width=None if terminal else NARROW, highlight=False, soft_wrap=False, emoji=False, markup=True)


def jsonable(value: Any) -> Any:
    """
    A value as JSON can say it.

    Args:
        value: dataclasses, mappings, sequences, paths and plain values.

    Returns: dicts, lists and plain values; a dataclass carries no type tag.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def verb(body: Callable[..., int | None]) -> Callable[..., int | None]:
    """
    Give a command the shared options; its first argument becomes a `Door`, its result the exit code.

    Args:
        body: the command's function, taking `door` first.

    Returns: the function with click's options on it.
    """

    @click.option("--project", type=click.Path(path_type=Path), default=Path(), help="overproof.toml or its folder.")
    @click.option("--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE", help="Override a key for this call.")
    @click.option("--json", "as_json", is_flag=True, help="Machine output on stdout, progress on stderr.")
    @click.option("--debug", is_flag=True, help="Show tracebacks.")
    @functools.wraps(body)
    def opened(*, project: Path, overrides: tuple[str, ...], as_json: bool, debug: bool, **rest: Any) -> int | None:
        door = Door(project=project, overrides=overrides, as_json=as_json, debug=debug)
        from overproof import progress

        token = progress.reporter.set(RichReporter())
        try:
            return body(door, **rest)
        finally:
            progress.reporter.reset(token)

    return opened


def tell(error: OverproofError) -> None:
    """Print an error as people should see it: what, then the next action; on stderr."""
    from rich.text import Text

    console = console_on(sys.stderr)
    what = error.what
    if isinstance(error, ProjectError):
        what = "\n".join(f"{p}" for p in [what.partition("\n")[0], *(f"  {i}. {p}" for i, p in enumerate(error.problems, 1))])
    console.print(Text("error: ", style="bold red") + Text(what), soft_wrap=True)
    console.print(Text("next: ", style="bold") + Text(error.next_action), soft_wrap=True)


class RichReporter:
    """Progress on stderr: bars on a terminal, a line now and then elsewhere; nothing for short work."""

    def start(self, what: str, total: int | None) -> Callable[[int], None]:
        """
        Begin a bar.

        Args:
            what: a few words.
            total: units, where known.

        Returns: a function that advances by so many units and ends at -1.
        """
        return _Bar(what, total).advance


class _Bar:
    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.done = what, total, 0
        self.began = self.told = time.monotonic()
        self.shown: Any = None

    def advance(self, units: int) -> None:
        now = time.monotonic()
        if units < 0:
            self._end(now)
            return
        self.done += units
        if now - self.began < QUIET_S:
            return
        if sys.stderr.isatty():
            self._draw()
        elif now - self.told >= TELL_EVERY_S:
            self.told = now
            of = f" of {self.total}" if self.total else ""
            click.echo(f"  {self.what}: {self.done}{of}", err=True)

    def _draw(self) -> None:
        if self.shown is None:
            from rich.progress import Progress

            bar = Progress(console=console_on(sys.stderr), transient=True)
            self.shown = (bar, bar.add_task(self.what, total=self.total))
            bar.start()
        bar, task = self.shown
        bar.update(task, completed=self.done)

    def _end(self, now: float) -> None:
        if self.shown is not None:
            self.shown[0].stop()
            self.shown = None
        if now - self.began >= TELL_EVERY_S and not sys.stderr.isatty():
            click.echo(f"  {self.what}: {self.done} in {now - self.began:.0f} s", err=True)
