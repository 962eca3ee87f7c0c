"""The command line: verbs are looked up when they are used, so that help comes at once."""

from __future__ import annotations

import errno
import importlib
import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from overproof.errors import (
    EXIT_INTERRUPTED,
    EXIT_OUTSIDE_WORLD,
    EXIT_USER_FILE,
    OutOfMemory,
    OverproofError,
    ProjectError,
    StoreError,
)

# verb: ("module:function", one line for the overview)
VERBS = {
    "discover": ("overproof.cli.discover:discover_tasks", "Find the tasks in a mixed log; say which are worth distilling."),
    "init": ("overproof.cli.setup:init", "Write a project file, a prompt and a terms record to fill in."),
    "check": ("overproof.cli.setup:check", "Validate everything offline; say what the next run costs."),
    "import": ("overproof.cli.intake:import_files", "Take logs that you already have into the traffic log."),
    "run": ("overproof.cli.walk:run", "Do what is missing, up to the verdict."),
    "review": ("overproof.cli.review:review", "Say what is true, row by row; the next run learns from it."),
    "waive": ("overproof.cli.waive:waive", "Let a finding pass for a while: two people, a reason, a last day."),
    "status": ("overproof.cli.walk:status", "Say what exists, what is stale and why."),
    "show": ("overproof.cli.show:show", "Print a result of the last run."),
    "serve": ("overproof.cli.serve:serve", "Stand in front of the teacher: log, compare, let the student answer."),
    "web": ("overproof.cli.web:web", "Show the dashboard and the review desk in a browser."),
    "promote": ("overproof.cli.rollout:promote", "Take a release to its next stage, if the evidence is there."),
    "rollback": ("overproof.cli.rollout:rollback", "Give all requests back to the teacher."),
    "watch": ("overproof.cli.watch:watch", "Watch what serves: audits, drift, the teacher, the owner's duties."),
    "refresh": ("overproof.cli.refresh:refresh", "Distil again with few new labels; hold it against the serving student."),
    "keys": ("overproof.cli.keys:keys", "Make, list or revoke keys of the gateway's callers."),
    "retain": ("overproof.cli.retain:retain", "End the time of old rows, as [privacy.retention] says."),
    "erase": ("overproof.cli.erase:erase", "Erase a person's rows and all that was made of them; prove it."),
    "backup": ("overproof.cli.backup:backup", "Copy the project to a folder while it runs."),
    "restore": ("overproof.cli.backup:restore", "Bring a backup back; every digest is checked first."),
    "sign": ("overproof.cli.sign:sign", "Sign a release with a key kept elsewhere; say whose signatures count."),
    "export": ("overproof.cli.export:export", "Write the release as a folder that serves by itself."),
    "store": ("overproof.cli.store:store", "Say what the store holds; move it to Postgres and back."),
    "ablate": ("overproof.cli.ablate:ablate", "Train with and without each rule of the filter: does it help?"),
    "diff": ("overproof.cli.show:diff", "Compare two runs slice by slice."),
    "demo": ("overproof.cli.demo:demo", "Walk the whole road on bundled data; no key, no network."),
}


class Verbs(click.Group):
    """A group whose commands are imported on use, and whose errors are told to people, not to debuggers."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order of a first day."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command behind a verb."""
        del ctx
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(module), name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, from the table alone."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say which verb may have been meant."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from overproof.registry import suggest

            raise click.UsageError(f"no verb named {args[0]!r}. {suggest(args[0], list(VERBS))}", ctx)
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run, and turn whatever happens into an exit code and a message with a next action."""
        given = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(given, *rest, **extra)
        except OverproofError as error:
            code = _told(error, as_json="--json" in given, debug="--debug" in given)
        except click.ClickException as error:
            error.show()
            code = EXIT_USER_FILE
        except (KeyboardInterrupt, click.Abort):
            click.echo("\ninterrupted; everything finished so far is kept. Next: run again to resume.", err=True)
            code = EXIT_INTERRUPTED
        except BrokenPipeError:
            code = EXIT_OUTSIDE_WORLD
        except MemoryError:
            code = _told(_memory(), as_json="--json" in given, debug="--debug" in given)
        except OSError as error:
            code = _told(_world(error), as_json="--json" in given, debug="--debug" in given)
        except Exception as error:  # noqa: BLE001 - the last door: people get words and an exit code
            code = _unexpected(error, debug="--debug" in given)
        sys.exit(code if isinstance(code, int) else 0)


def _world(error: OSError) -> StoreError:
    """What the machine refused, in words; a step that was cut off leaves nothing behind."""
    where = f" at {error.filename!r}" if error.filename else ""
    short = error.errno is None and "requested and" in str(error)  # numpy's words for a write that was cut off
    full = short or error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StoreError(
        f"{'the disk is full' if full else error.strerror or error}{where}; what was finished before is kept",
        next_action="free some space, then run again to resume" if full else "mend that, then run again to resume",
    )


def _memory() -> OutOfMemory:
    return OutOfMemory(
        "the memory of this machine or process is not enough; what was finished before is kept",
        next_action="give it more, or fewer rows ([promptset] requests), then run again to resume",
    )


def _told(error: OverproofError, *, as_json: bool, debug: bool) -> int:
    from overproof.privacy.redact import scrub

    if debug:
        _trace(error)
    # What a user's own file says may be named to its user, but for keys; a row of a log may hold anything.
    kinds = {"redact": ("secrets",)} if isinstance(error, ProjectError) else {}
    error.what = scrub(error.what, **kinds)
    if isinstance(error, ProjectError):
        error.problems = tuple(scrub(line, **kinds) for line in error.problems)
    if as_json:
        problems = getattr(error, "problems", ())
        body = {"error": error.what, "next": error.next_action, "exit_code": error.exit_code, "problems": list(problems)}
        click.echo(json.dumps(body, ensure_ascii=False, indent=1))
    from overproof.cli.door import tell

    tell(error)
    return error.exit_code


def _unexpected(error: Exception, *, debug: bool) -> int:
    from overproof.privacy.redact import scrub

    if debug:
        _trace(error)
        return EXIT_OUTSIDE_WORLD
    click.echo(f"error: unexpected {type(error).__name__}: {scrub(str(error))}", err=True)
    click.echo("next: run again with --debug and report the traceback; this is a bug of overproof", err=True)
    return EXIT_OUTSIDE_WORLD


def _trace(error: BaseException) -> None:
    """The traceback with all that led to it; messages may quote a row, so they are redacted like everything else."""
    import traceback

    from overproof.privacy.redact import scrub

    click.echo(scrub("".join(traceback.format_exception(error))), err=True)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="overproof", prog_name="overproof")
def main() -> None:
    """Distil a large model on one narrow task into a small model that you own, and prove that it holds up.

    A first day: init, check, import, run, read the verdict, mend, run again.
    """
