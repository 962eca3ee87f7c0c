"""Content-addressed values, the steps that make them, and the runner that reuses them."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Generic, Literal, TypeVar, overload

from overproof.data import digest_of
from overproof.errors import StoreError
from overproof.store.codec import Written, changed_type, encode
from overproof.store.objects import Objects

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
Recipe = TypeVar("Recipe")
Result = TypeVar("Result")
Value_co = TypeVar("Value_co", covariant=True)
Function_co = TypeVar("Function_co", bound=Callable[..., Any], covariant=True)


class NotBuilt(StoreError):
    """A dry memo was asked for a value that only a run can make."""


class Artifact(Generic[Value_co]):
    """
    A stored value: its digest now, the value itself when somebody asks.

    Args:
        name: step or source that it comes from, for messages.
        digest: SHA-256 of its canonical bytes; None for one that a dry memo could not find.
        load: brings the value.
        path: file that holds the bytes, where there is one.
        keep: False for what is too large to stay in memory once a step has used it.
    """

    __slots__ = ("_digest", "_keep", "_load", "_value", "name", "path", "subject")

    def __init__(
        self, name: str, digest: str | None, load: Callable[[], Value_co], *, path: Path | None = None, keep: bool = True
    ) -> None:
        self.name = name
        self.path = path
        self.subject = ""
        self._digest = digest
        self._load, self._keep = load, keep
        self._value: tuple[Value_co] | None = None

    @property
    def built(self) -> bool:
        """True iff the value is there; False only under a dry memo."""
        return self._digest is not None

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes; NotBuilt where there are none yet."""
        if self._digest is None:
            raise NotBuilt(f"{self.name} has no up-to-date result", next_action="overproof run")
        return self._digest

    @property
    def value(self) -> Value_co:
        """The value, loaded and verified once; CorruptArtifact where its bytes are not what they were."""
        if self._value is None:
            if self._digest is None:
                raise NotBuilt(f"{self.name} has no up-to-date result", next_action="overproof run")
            value = self._load()
            if not self._keep:
                return value
            self._value = (value,)
        return self._value[0]

    def __repr__(self) -> str:
        return f"Artifact({self.name!r}, {(self._digest or 'not built')[:12]})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(Generic[Function_co]):
    """A pure function with the name and version under which its results are found again."""

    name: str
    """Lower case with dashes; one step, one name."""
    version: int
    """Raised by hand when the function's result changes for the same inputs."""
    fn: Function_co
    """Takes the inputs' values, then the recipe, then keyword-only runtime arguments."""
    workdir: bool = False
    """True: the function gets a fresh folder as keyword `workdir`; a `Folder` in it may be part of the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepEvent:
    """What a memo did with one step."""

    step: str
    subject: str
    """What it is about where a run does the step several times: the candidate's name; else empty."""
    action: Literal["start", "run", "reuse", "stale", "waits"]
    """start: begins now; run: done; reuse: found; stale, waits: dry memos only, would run, depends on one that would."""
    seconds: float
    why: str
    """Why it ran or would run; empty for reuse."""
    digest: str | None
    """Of the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    output: str | None = None
    trouble: str = ""


class _Call:
    """One step with its inputs and recipe: its identity, and what differs from an earlier one."""

    def __init__(self, step: Step[Any], inputs: list[str], recipe: Any) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_.-]{0,63}", step.name):
            raise StoreError(
                f"step name {step.name!r} can't be a folder's name",
                next_action="use lower case, digits, - _ .",
            )
        self.step = step
        self.inputs = inputs
        self.recipe = recipe
        self.identity = digest_of([step.name, step.version, encode(recipe).digest, inputs])

    def recipe_parts(self) -> dict[str, str]:
        """Digest of each option, so that a change can be named."""
        if not is_dataclass(self.recipe):
            return {"recipe": encode(self.recipe).digest}
        return {f.name: encode(getattr(self.recipe, f.name)).digest for f in fields(self.recipe)}

    def differences(self, row: Mapping[str, Any]) -> list[str]:
        """What is not as it was in the run with this manifest, in words."""
        said: list[str] = []
        if row.get("version") != self.step.version:
            said.append(f"version {row.get('version')} → {self.step.version}")
        before, now = row.get("recipe") or {}, self.recipe_parts()
        said += [
            f"option {key} changed" for key in sorted({*before, *now}) if before.get(key) != now.get(key)
        ]
        names = list(inspect.signature(self.step.fn).parameters)
        old = row.get("inputs") or []
        if len(old) != len(self.inputs):
            said.append(f"{len(self.inputs)} inputs, before {len(old)}")
        pairs = zip(names, self.inputs, old, strict=False)
        return said + [f"input {name} changed" for name, new, was in pairs if new != was]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        row = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None


def _processor_s() -> float:
    """Processor time of this process and of ended programs that it started, whatever the number of cores."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _pending(name: str) -> Artifact[Any]:
    return Artifact(name, None, lambda: None)


class Memo:
    """
    Runs a step unless its result is there already.

    Identity is the step's name and version, its recipe, and the digests of the inputs' bytes; runtime arguments
    are no part of it. A result is read back from the store even when it has just been made, so a first run and a
    repeated one see the same bytes.

    Args:
        objects: the project's files.
        on_event: called at the start and the end of each step.
        dry: run nothing and write nothing; `events` then say what is stale and why.
    """

    def __init__(
        self, objects: Objects, *, on_event: Callable[[StepEvent], None] | None = None, dry: bool = False
    ) -> None:
        self.objects = objects
        self.dry = dry
        self.events: list[StepEvent] = []
        self._on_event = on_event

    @overload
    def run(
        self, step: Step[Callable[Concatenate[Recipe, ...], Result]], /, *, recipe: Recipe, **runtime: Any
    ) -> Artifact[Result]: ...
    @overload
    def run(
        self,
        step: Step[Callable[Concatenate[A, Recipe, ...], Result]],
        a: Artifact[A],
        /,
        *,
        recipe: Recipe,
        **runtime: Any,
    ) -> Artifact[Result]: ...
    @overload
    def run(
        self,
        step: Step[Callable[Concatenate[A, B, Recipe, ...], Result]],
        a: Artifact[A],
        b: Artifact[B],
        /,
        *,
        recipe: Recipe,
        **runtime: Any,
    ) -> Artifact[Result]: ...
    @overload
    def run(
        self,
        step: Step[Callable[Concatenate[A, B, C, Recipe, ...], Result]],
        a: Artifact[A],
        b: Artifact[B],
        c: Artifact[C],
        /,
        *,
        recipe: Recipe,
        **runtime: Any,
    ) -> Artifact[Result]: ...
    @overload
    def run(
        self,
        step: Step[Callable[Concatenate[A, B, C, D, Recipe, ...], Result]],
        a: Artifact[A],
        b: Artifact[B],
        c: Artifact[C],
        d: Artifact[D],
        /,
        *,
        recipe: Recipe,
        **runtime: Any,
    ) -> Artifact[Result]: ...
    def run(self, step: Any, /, *inputs: Any, recipe: Any, **runtime: Any) -> Any:
        """
        The step's result: found where it has been made before, made and stored where not.

        Args:
            step: what to run.
            inputs: artifacts whose values the function takes, in order.
            recipe: frozen dataclass of everything else that the result depends on.
            runtime: what it doesn't depend on: a client, a concurrency, a device.

        Returns: the result as an artifact.
        Raises: StoreError where the result can't be stored; whatever the step raises.
        """
        began = time.perf_counter()
        subject = getattr(recipe, "name", None) or (inputs[0].subject if inputs else "")
        tell = partial(self._report, step, subject, began)
        waits = [part.name for part in inputs if not part.built]
        if waits:
            tell("waits", why=f"needs {', '.join(waits)}")
            return _pending(step.name)
        call = _Call(step, [part.digest for part in inputs], recipe)
        found = self._lookup(call)
        if found.output is not None:
            tell("reuse", digest=found.output)
            return self._stored(step.name, found.output, subject)
        why = found.trouble or self._compare(call)
        if self.dry:
            tell("stale", why=why)
            return _pending(step.name)
        self._emit(StepEvent(step=step.name, subject=subject, action="start", seconds=0.0, why=why, digest=None))
        busy = _processor_s()
        encoded = self._make(step, inputs, recipe, runtime)
        self._write_manifest(call, encoded, time.perf_counter() - began, _processor_s() - busy)
        tell("run", why=why, digest=encoded.digest)
        return self._stored(step.name, encoded.digest, subject)

    def due(self, step: Any, /, *inputs: Any, recipe: Any) -> bool:
        """
        Whether `run` would really run the step now.

        Args:
            step: see `run`.
            inputs: see `run`.
            recipe: see `run`.

        Returns: False for a dry memo, and while an input is missing.
        """
        if self.dry or not all(part.built for part in inputs):
            return False
        return self._lookup(_Call(step, [part.digest for part in inputs], recipe)).output is None

    def cpu_seconds(self, step: Step[Any], /, *inputs: Artifact[Any], recipe: Any) -> float | None:
        """
        What a step's stored result took when it was made.

        Args:
            step: as it was run.
            inputs: likewise.
            recipe: likewise.

        Returns: seconds of processor time of this process and the programs that it waited for; None where not on record.
        """
        if not all(part.built for part in inputs):
            return None
        row = _read_json(self._manifest(_Call(step, [part.digest for part in inputs], recipe))) or {}
        found = row.get("cpu_seconds")
        return float(found) if isinstance(found, int | float) else None

    def source(self, name: str, value: A) -> Artifact[A]:
        """
        Wrap an input value, for example a file's bytes, so that its digest counts in what depends on it.

        Args:
            name: for messages.
            value: anything that `codec.encode` takes.

        Returns: the value as an artifact.
        """
        if self.dry:
            return Artifact(name, encode(value, keep=self.objects.tree_digest).digest, lambda: value)
        return self._stored(name, self.objects.put(value).digest)

    def lazy(self, name: str, digest: str, load: Callable[[], A]) -> Artifact[A]:
        """
        Wrap an input that lives elsewhere in the store, for example a log, without copying it.

        Args:
            name: for messages.
            digest: 64 hexadecimal digits that change whenever the value does.
            load: brings the value; called only where a step really runs, and each time that one does.

        Returns: the value as an artifact.
        Raises: StoreError for a digest of another form.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise StoreError(f"{name}: {digest!r} is not a SHA-256", next_action="pass 64 hexadecimal digits")
        return Artifact(name, digest, load, keep=False)

    def gather(self, parts: Sequence[Artifact[A]]) -> Artifact[tuple[A, ...]]:
        """
        Several artifacts as one input.

        Args:
            parts: artifacts of one type.

        Returns: the tuple of their values, loaded when asked for.
        """
        waiting = [part.name for part in parts if not part.built]
        if waiting:
            return _pending(", ".join(waiting))
        digest = digest_of(["gather", [part.digest for part in parts]])
        return Artifact("gather", digest, lambda: tuple(part.value for part in parts))

    def stored(self, name: str, digest: str) -> Artifact[Any]:
        """
        A result that was made before, by its digest.

        Args:
            name: for messages.
            digest: as an event or a run record names it.

        Returns: the artifact; CorruptArtifact when its value is asked for and the bytes are gone or damaged.
        """
        return self._stored(name, digest)

    def made_of(self, step: str, *inputs: str) -> Artifact[Any] | None:
        """
        What a step once made of these inputs, whatever its recipe and version were: for looking back at a run.

        Args:
            step: its name.
            inputs: digests of all its inputs, in order.

        Returns: the newest result that is still whole; None where there is none.
        """
        found = []
        for path in (self.objects.home / "steps" / step).glob("*.json"):
            row = _read_json(path)
            if row is not None and row.get("inputs") == list(inputs) and self.objects.has_value(str(row.get("output"))):
                found.append((path.stat().st_mtime_ns, str(row["output"])))
        return self._stored(step, max(found)[1]) if found else None

    def _make(
        self, step: Step[Any], inputs: Sequence[Artifact[Any]], recipe: Any, runtime: Mapping[str, Any]
    ) -> Written:
        values = [part.value for part in inputs]
        workdir = self.objects.scratch() / f"{step.name}-{uuid.uuid4().hex[:8]}"
        workdir.mkdir()
        try:
            extra = {"workdir": workdir} if step.workdir else {}
            result = step.fn(*values, recipe, **runtime, **extra)
            return self.objects.put(result)
        finally:
            shutil.rmtree(workdir, ignore_errors=True)

    def _write_manifest(self, call: _Call, encoded: Written, seconds: float, cpu_seconds: float) -> None:
        row = {
            "step": call.step.name,
            "version": call.step.version,
            "recipe": call.recipe_parts(),
            "inputs": call.inputs,
            "output": encoded.digest,
            "folders": encoded.folders,
            "types": encoded.types,
            "seconds": round(seconds, 6),
            "cpu_seconds": round(cpu_seconds, 3),
        }
        self.objects.note(self._manifest(call), json.dumps(row).encode())

    def _manifest(self, call: _Call) -> Path:
        return self.objects.home / "steps" / call.step.name / f"{call.identity}.json"

    def _lookup(self, call: _Call) -> _Found:
        row = _read_json(self._manifest(call)) if self.objects.noted(self._manifest(call)) else None
        if row is None:
            return _Found()
        try:
            whole = self.objects.has_value(row["output"]) and all(map(self.objects.has_tree, row["folders"]))
            changed = changed_type(row["types"])
        except (KeyError, TypeError, ValueError):
            return _Found(trouble="its manifest is damaged")
        if not whole:
            return _Found(trouble="its stored result is missing")
        if changed:
            return _Found(trouble=f"class {changed} has changed")
        return _Found(output=row["output"])

    def _compare(self, call: _Call) -> str:
        """What changed against the most similar earlier run of the step."""
        folder = self._manifest(call).parent
        rows = [row for path in folder.glob("*.json") if (row := _read_json(path)) is not None]
        if not rows:
            return "first run"
        differences = [call.differences(row) for row in rows]
        fewest = min(differences, key=len)
        return ", ".join(fewest) or "its manifest was lost"

    def _stored(self, name: str, digest: str, subject: str = "") -> Artifact[Any]:
        load = partial(self.objects.value, digest, where=f"{name} ({digest[:12]})")
        found: Artifact[Any] = Artifact(name, digest, load, path=self.objects.value_path(digest))
        found.subject = subject
        return found

    def _report(
        self,
        step: Step[Any],
        subject: str,
        began: float,
        action: Literal["run", "reuse", "stale", "waits"],
        *,
        why: str = "",
        digest: str | None = None,
    ) -> None:
        seconds = time.perf_counter() - began
        event = StepEvent(step=step.name, subject=subject, action=action, seconds=seconds, why=why, digest=digest)
        self.events.append(event)
        self._emit(event)

    def _emit(self, event: StepEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)
