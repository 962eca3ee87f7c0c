"""overproof.toml to a frozen `Project`: strict, every mistake at once, each with its table, key and a suggestion."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from overproof import registry
from overproof.data import TeacherPin, stage_problems
from overproof.errors import DataError, NotYetError, ProjectError
from overproof.model_files import file_sha256, model_file
from overproof.project_errors import lines_of
from overproof.project_outputs import PARTS, kind_name, misfits
from overproof.settings import (
    RUNTIMES,
    AskedTable,
    BarsTable,
    CostsTable,
    FairnessTable,
    GateTable,
    GatewayTable,
    JudgeTable,
    MemberTable,
    OptimiseTable,
    Owner,
    Part,
    PrivacyTable,
    PromptSetTable,
    ProofTable,
    RunTable,
    ServeTable,
    SizingTable,
    SliceTable,
    SuspicionTable,
    TaskTable,
    TeacherTable,
    TrafficTable,
)
from overproof.settings_probe import ProbeTable, probe_problems
from overproof.settings_watch import NotifyTable, WatchTable, notify_problems, watch_problems
from overproof.task import Classes, Task, Text, judge_fields, judge_task, output_of

PRICES = ("price_in_usd_per_million", "price_out_usd_per_million")
BUILT_IN_BASELINES = ("majority.v1", "nearest.v1", "ngram.v1")
LOCAL = "local.v1"
ASKED = tuple(f.name for f in dataclasses.fields(AskedTable))
"""Keys of a [[baseline]] that speak to the run and not to its part."""
SUSPICION = "suspicion.v1"  # a [[verify]] rule that needs all rows at once, so no part of its own
NOT_A_JUDGES = ("distribution", "samples", "hard_samples", "extra_on", "extra_below", "samples_by", "repeat", "canaries", "on_canary", "agreement")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

TABLES: Mapping[str, type] = {
    "task": TaskTable, "owner": Owner, "traffic": TrafficTable, "privacy": PrivacyTable, "promptset": PromptSetTable,
    "teacher": TeacherTable, "bars": BarsTable, "serve": ServeTable, "proof": ProofTable,
    "fairness": FairnessTable, "gateway": GatewayTable, "judge": JudgeTable, "run": RunTable, "sizing": SizingTable, "costs": CostsTable,
    "watch": WatchTable, "notify": NotifyTable, "gate": GateTable, "probe": ProbeTable,
}  # fmt: skip
LISTS = {"verify": "verifiers", "student": "students", "baseline": "baselines", "slice": "", "committee": ""}
STAND_INS: Mapping[str, Any] = {"name": "x", "input": ["x"], "output": {}, "prompt": "", "use": "", "email": "x@x.xx"}
REQUIRED = {"task": "name the job, its input fields and its labels", "teacher": "name the model that answers today",
            "bars": "say how good is good enough", "student": "name at least one as [[student]]"}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """Everything that the user's file says, checked."""

    file: str
    """The project file's name, for messages."""
    root: Path = field(compare=False)
    """Folder of the project file; all paths are relative to it."""
    task: Task
    owner: Owner | None
    traffic: TrafficTable
    privacy: PrivacyTable
    promptset: PromptSetTable
    teacher: TeacherTable
    verifiers: tuple[Part, ...]
    students: tuple[Part, ...]
    baselines: tuple[Part, ...]
    """The built-in do-nothing baselines, then those of the file."""
    bars: BarsTable
    slices: tuple[SliceTable, ...]
    """In file order; `expand_slices` turns them into slices."""
    serve: ServeTable
    proof: ProofTable
    fairness: FairnessTable
    digests: Mapping[str, str]
    """"project", "prompt", "terms", "recording": SHA-256 of each file that there is."""
    committee: tuple[MemberTable, ...] = ()
    """Further teachers, in file order."""
    suspicion: SuspicionTable | None = None
    """The [[verify]] table of suspicion.v1; None where there is none."""
    sizing: SizingTable = field(default_factory=SizingTable)
    """Further fits that compare sizes."""
    judge: JudgeTable = field(default_factory=JudgeTable)
    """Who judges labels; nobody where its `use` is empty."""
    run: RunTable = field(default_factory=RunTable)
    costs: CostsTable = field(default_factory=CostsTable)
    gateway: GatewayTable = field(default_factory=GatewayTable)
    watch: WatchTable = field(default_factory=WatchTable)
    notify: NotifyTable = field(default_factory=NotifyTable)
    gate: GateTable = field(default_factory=GateTable)
    probe: ProbeTable = field(default_factory=ProbeTable)
    judge_prompt: str = ""
    """The judge's own instructions; empty for the built-in ones."""

    @property
    def pin(self) -> TeacherPin:
        """The exact teacher, sampling parameters and prompt included."""
        return self.pin_of(self.teacher)

    def asked(self, part: Part) -> AskedTable:
        """What a [[baseline]] that is asked says to the run; its defaults for one that is fitted."""
        own = {k: v for k, v in part.options.items() if k in ASKED}
        return TypeAdapter(AskedTable).validate_json(json.dumps(own))

    @property
    def judge_task(self) -> Task:
        """What the judge is asked."""
        return judge_task(self.task, self.judge_prompt)

    def pin_of(self, table: TeacherTable) -> TeacherPin:
        """The exact model of [teacher], of one [[committee]] table or of [judge]."""
        t, judge = table, isinstance(table, JudgeTable)
        named = f"recording {t.name}" if isinstance(t, MemberTable) else "recording judge" if judge else "recording"
        recording = self.digests.get(named, "")
        recorded = t.use.startswith("recorded.")
        asked = {"temperature": t.temperature, "max_tokens": t.max_tokens, **t.options}  # all of it changes the answer
        texts = {k: v if isinstance(v, str | int | float) else json.dumps(v, sort_keys=True) for k, v in asked.items()}
        # A revision that somebody wrote down doesn't change with the file, and other answers are another teacher.
        replayed = {k: texts[k] for k in t.options} | ({"recording": recording} if t.revision and recording else {})
        parameters = replayed if recorded else texts
        provider = t.provider or ("recording" if recorded else "local" if t.use == LOCAL else urlsplit(t.base_url).hostname or "")
        return TeacherPin(
            use=t.use, provider=provider, model=t.model, revision=t.revision or recording,
            base_url=t.base_url, parameters=parameters,
            prompt_digest=(self.judge_task if judge else self.task).prompt_digest,
        )  # fmt: skip


def moving_model(model: str, revision: str) -> str | None:
    """
    Why a model id doesn't pin anything.

    Args:
        model: the id as the provider takes it.
        revision: revision, fingerprint or digest, where there is one.

    Returns: the reason, or None where the id carries a date or version, or the revision pins it.
    """
    moving = ("latest", "main", "master", "head", "preview")
    for word in (model, revision):
        if set(re.split(r"[^a-z0-9]+", word.casefold())) & set(moving[:1]) or word.casefold() in moving:
            return f"model {model!r} moves: {word!r} is an alias; name a dated id or a revision"
    dated = re.search(r"20\d{2}[-.]?[01]\d([-.]?[0-3]\d)?(?!\d)|[-@_:](\d{3,4}|\d{6,8}|[0-9a-f]{7,64})$", model)
    return None if dated or re.search(r"[0-9a-f]{7,64}|\d", revision) else f"model {model!r} moves: it carries no date, version or digest; add one, or a revision"


def is_person(name: str, email: str) -> str | None:
    """
    Why a name or address isn't a person's.

    Args:
        name: the name that was given.
        email: the address that was given.

    Returns: the reason, or None.
    """
    groups = {"team", "group", "squad", "department", "support", "ops", "devops", "everyone", "admin"}
    if not name.strip() or name.startswith("<") or groups & set(re.split(r"\W+", name.casefold())):
        return f"name is {name!r}; write a person's name, not a group's"
    good = re.fullmatch(r"[^@\s<>]+@[^@\s<>]+\.[^@\s<>.]+", email)
    return None if good else f"email {email!r} is not an address"


def load_project(path: Path, *, overrides: Sequence[str] = ()) -> Project:
    """
    Read and check the user's file, without importing any part.

    Args:
        path: overproof.toml, or the folder that holds it.
        overrides: "table.key=value" each; for lists "student.2.C=3" means the second one.

    Returns: the project.
    Raises: ProjectError with every mistake at once.
    """
    path = path / "overproof.toml" if path.is_dir() else path
    try:
        text = path.read_bytes().decode("utf-8")
        raw = tomllib.loads(text)
    except OSError as error:
        remedy = "; `overproof init` writes one" if isinstance(error, FileNotFoundError) else ""
        raise ProjectError([f"can't be read: {error.strerror}{remedy}"], file=path.name) from error
    except ValueError as error:  # not UTF-8, or not TOML: both say where
        raise ProjectError([f"syntax: {error}"], file=path.name) from error
    return _Reading(path=path, raw=raw).project(overrides, text)


def files_of(path: Path) -> list[Path]:
    """
    The files that a path with `*`, `?` or `[` in its last part stands for, in order; any other path stands for itself.

    Args:
        path: as the project file names it.

    Returns: at least one path, which need not exist.
    """
    return (sorted(path.parent.glob(path.name)) if re.search(r"[*?\[]", path.name) else []) or [path]


class _Reading:
    """One pass over the file that collects problems and never stops at the first."""

    def __init__(self, *, path: Path, raw: dict[str, Any]) -> None:
        self.path, self.raw = path, raw
        self.problems: list[str] = []
        self.digests: dict[str, str] = {}

    def project(self, overrides: Sequence[str], text: str) -> Project:
        for override in overrides:
            self.override(override)
        self.digests["project"], known = _sha256("\n".join([text, *overrides]).encode()), [*TABLES, *LISTS]
        self.problems += [f"[{key}]: unknown table. {registry.suggest(key, known)}" for key in self.raw if key not in known]
        self.problems += [f"[{key}]: missing; {why}" for key, why in REQUIRED.items() if key not in self.raw]
        tables = {key: self.table(key, kind) for key, kind in TABLES.items()}
        parts = {key: self.parts(key, kind) for key, kind in LISTS.items() if kind}
        suspicion = self.suspicion([v for v in parts["verify"] if v.use == SUSPICION])
        task = self.task(tables["task"])
        slices = self.slices(task.output.labels if task else ())
        self.teacher(tables["teacher"], task, slices)
        committee = self.committee(tables["teacher"])
        judge_prompt = self.judge(tables["judge"], tables["teacher"], task)
        self.rest(tables)
        self.fairness(tables["fairness"], task)
        students, extra = parts["student"], parts["baseline"]
        baselines = [Part(use=use, name=use) for use in BUILT_IN_BASELINES if use not in {p.name for p in extra}] + extra
        if task is not None:
            self.problems += misfits(task.output, tables, {**parts, "slice": slices})
            baselines = [b for b in baselines if b in extra or kind_name(task.output) in PARTS.get(b.use, (kind_name(task.output),))]
        self.unique([p.name for p in students + baselines], "[[student]] and [[baseline]]", "give each a `name` of its own")
        if self.problems or task is None:
            raise ProjectError(self.problems, file=self.path.name)
        same = {key: tables[key] for key in TABLES if key != "task"}
        return Project(
            file=self.path.name, root=self.path.parent, task=task, students=tuple(students),
            verifiers=tuple(v for v in parts["verify"] if v.use != SUSPICION), suspicion=suspicion,
            baselines=tuple(baselines), slices=tuple(slices), digests=self.digests, committee=tuple(committee),
            judge_prompt=judge_prompt, **same,
        )  # fmt: skip

    def say(self, where: str, faults: Mapping[str, bool]) -> None:
        self.problems += [f"{where}: {text}" for text, wrong in faults.items() if wrong]

    def override(self, text: str) -> None:
        keys, equals, value = text.partition("=")
        *path, last = keys.strip().split(".")
        at: Any = self.raw
        for key in path:
            if isinstance(at, list):
                at = at[int(key) - 1] if key.isdigit() and 1 <= int(key) <= len(at) else None
            elif isinstance(at, dict):
                at = at.setdefault(key, {})
        if not (equals and path and isinstance(at, dict)):
            self.say(f"--set {text!r}", {"write table.key=value, or student.2.key=value for the second [[student]]": True})
            return
        try:
            at[last] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            at[last] = value.strip()

    def table(self, key: str, kind: type) -> Any:
        needed = key in ("task", "owner", "teacher", "bars")  # every key of the others has a default
        return None if needed and key not in self.raw else self.read(self.raw.get(key, {}), kind, f"[{key}]")

    def read(self, raw: Any, kind: type, where: str) -> Any:
        if not isinstance(raw, dict):
            self.problems.append(f"{where}: got {raw!r}; write it as a table")
            return None
        try:
            return TypeAdapter(kind).validate_json(json.dumps(raw, default=str))
        except ValidationError as error:
            self.problems += lines_of(error.errors(include_url=False), kind, where)
            bad = {str(item["loc"][0]) for item in error.errors() if item["loc"]}  # stand-ins let later checks see the rest
            needed = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING} & bad & set(STAND_INS)
            rest = {k: v for k, v in raw.items() if k not in bad} | {k: STAND_INS[k] for k in needed}
            return None if bad == set() else TypeAdapter(kind).validate_json(json.dumps(rest, default=str))

    def entries(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        raw = self.raw.get(key, [])
        if not isinstance(raw, list) or not all(isinstance(item, dict) for item in raw):
            self.problems.append(f"[{key}]: got a single table; write [[{key}]], with two brackets")
            return []
        words = [*ORDINALS, *(f"{i}th" for i in range(len(ORDINALS) + 1, len(raw) + 1))]
        return [(f"{word} [[{key}]]" if len(raw) > 1 else f"[[{key}]]", item) for word, item in zip(words, raw, strict=False)]

    def parts(self, key: str, kind: str) -> list[Part]:
        found = []
        known = registry.names(kind) + (registry.names("teachers") if key == "baseline" else [])
        extra = {"baseline": BUILT_IN_BASELINES, "verify": (SUSPICION,)}.get(key, ())
        known = sorted({*known, *extra})
        for where, raw in self.entries(key):
            rest = {k: v for k, v in raw.items() if k not in ("use", "name")}
            odd = {k: v for k, v in rest.items() if isinstance(v, date | time) or str(v) in ("nan", "inf", "-inf")}
            part = Part(use=str(raw.get("use", "")), name=str(raw.get("name", raw.get("use", ""))), options=rest)
            unknown = part.use not in known and not _is_function(part.use)
            runtime = rest.get("runtime", RUNTIMES[0]) if part.use == "encoder.v1" else RUNTIMES[0]
            self.say(where, {
                f"no runtime {runtime!r}. {registry.suggest(str(runtime), list(RUNTIMES))}": runtime not in RUNTIMES,
                f"no part named {part.use!r} among {kind}. {registry.suggest(part.use, known)}": unknown,
                "name is empty": not part.name and not unknown,
                **{f"{k} = {v!r} is neither text, number, list nor table": True for k, v in odd.items()},
            })  # fmt: skip
            found.append(part)
            if key == "baseline" and (part.use in registry.names("teachers") or _is_function(part.use)):
                self.read({k: v for k, v in rest.items() if k in ASKED and k != "optimise"}, AskedTable, where)
                self.read(rest.get("optimise", {}), OptimiseTable, f"{where} optimise")
        return found

    def suspicion(self, tables: Sequence[Part]) -> SuspicionTable | None:
        where = f"[[verify]] {SUSPICION}"
        self.say(where, {"is there twice; keep one": len(tables) > 1})
        return self.read(dict(tables[0].options), SuspicionTable, where) if tables else None

    def slices(self, labels: Sequence[str]) -> list[SliceTable]:
        found, names = [], []
        for where, raw in self.entries("slice"):
            names.append(raw.get("name") or raw.get("by"))
            if (table := self.read(raw, SliceTable, where)) is None:
                continue
            rule = table.where
            values = rule.get("label", ()) if isinstance(rule, Mapping) else ()
            strange = [v for v in ((values,) if isinstance(values, str) else values) if labels and v not in labels]
            self.say(where, {
                'write either where = { attribute = "value" } or by = "attribute"': (rule is None) == (table.by is None),
                "name is missing": table.by is None and not table.name,
                f'where = {rule!r} is no "module:function"': isinstance(rule, str) and not _is_function(rule),
                **{f"no label {v!r}. {registry.suggest(v, list(labels))}": True for v in strange},
            })  # fmt: skip
            found.append(table)
        self.unique(names, "[[slice]]", "rename one of them")
        return found

    def unique(self, names: list[Any], where: str, remedy: str) -> None:
        twice = dict.fromkeys(n for n in names if n and names.count(n) > 1)
        self.say(where, {f"{names.count(name)} are named {name!r}; {remedy}": True for name in twice})

    def file(self, where: str, key: str, name: str) -> bytes | None:
        try:
            data = b"".join(one.read_bytes() for one in files_of(self.path.parent / name))
        except OSError as error:
            self.problems.append(f"{where}: {key} = {name!r}: {error.strerror or 'can not be read'}, looked beside {self.path.name}")
            return None
        self.digests["recording" if key == "path" else key] = _sha256(data)
        return data

    def model(self, where: str, place: str) -> None:
        """A model file's digest is its revision."""
        try:
            self.digests["recording"] = file_sha256(model_file(place, root=self.path.parent))
        except DataError as error:
            self.problems.append(f"{where}: {error.what}; {error.next_action}")

    def task(self, table: TaskTable | None) -> Task | None:
        if table is None:
            return None
        data = self.file("[task]", "prompt", table.prompt) if table.prompt else None
        output, labels = None, table.output.get("classes", [])
        if not (isinstance(labels, list) and all(isinstance(v, str) for v in labels)):
            self.problems.append(f"[task]: output.classes = {labels!r}; write a list of labels in quotes")
        elif table.output:
            try:
                output = output_of(table.output)
            except (DataError, NotYetError) as error:
                self.problems.append(f"[task]: {error.what}; {error.next_action}")
        prompt = (data or b"").decode("utf-8", "replace")
        faults = {"is empty": not prompt.strip(), "is not UTF-8": "\ufffd" in prompt} if data is not None else {}
        self.say(f"[task]: prompt = {table.prompt!r}", faults)
        if output is None:
            return None
        foreign = table.out_of_scope
        unknown = f"out_of_scope names no class {foreign!r}. {registry.suggest(foreign, list(output.labels))}"
        self.say("[task]", {unknown: isinstance(output, Classes) and bool(foreign) and foreign not in output.labels})
        return Task(name=table.name, input=table.input, output=output, prompt=prompt, out_of_scope=foreign)

    def teacher(self, table: TeacherTable | None, task: Task | None, slices: Sequence[SliceTable]) -> None:
        if table is None:
            return
        known, recorded = registry.names("teachers"), table.use.startswith("recorded.")
        if table.path and table.use == LOCAL:
            self.model("[teacher]", table.path)
        elif table.path:
            self.file("[teacher]", "path", table.path)
        if table.terms and (self.path.parent / table.terms).is_file():  # a missing one is the terms gate's to refuse
            self.file("[teacher]", "terms", table.terms)
        moving = moving_model(table.model, table.revision or self.digests.get("recording", ""))
        hard = table.hard_samples or table.samples
        names = [*(task.output.labels if task else ()), *(s.name or s.by or "" for s in slices)]
        strange = [name for name in table.extra_on if task and name not in names]
        unknown = bool(table.use) and table.use not in known and not _is_function(table.use)
        self.say("[teacher]", {
            f"no part named {table.use!r} among teachers. {registry.suggest(table.use, known)}": unknown,
            "model is missing; name the exact model that gave the answers": not table.model,
            moving or "": bool(table.model and moving),
            "base_url and api_key_env contradict recorded.v1, which calls nobody":
                recorded and bool(table.base_url or table.api_key_env),
            f"path belongs to recorded.v1 and {LOCAL}, not to {table.use!r}":
                bool(table.path) and not recorded and table.use != LOCAL,
            f"path is missing; {LOCAL} needs a GGUF file": table.use == LOCAL and not table.path,
            f"hard_samples = {hard} is less than samples = {table.samples}": hard < table.samples,
            f"hard_samples = {hard} has no effect with samples = 1 and no extra_on: one answer has none to differ from":
                hard > table.samples == 1 and not (table.extra_on or table.samples_by or table.extra_below is not None),
            "extra_on without hard_samples above samples has no effect": bool(table.extra_on) and hard <= table.samples,
            **{f"extra_on names {name!r}, neither a label nor a slice. {registry.suggest(name, names)}": True for name in strange},
        })  # fmt: skip
        strange = sorted(set(table.samples_by) - {s.name or s.by or "" for s in slices})
        logged = bool(table.options.get("logprobs"))
        self.say("[teacher]", {
            'mode = "batch" needs openai.v1 or anthropic.v1': table.mode == "batch" and table.use not in ("openai.v1", "anthropic.v1"),
            "extra_below needs openai.v1 with options = { logprobs = true }, and hard_samples above samples":
                table.extra_below is not None and not (logged and hard > table.samples),
            **{f"samples_by names {name!r}, which is no slice": True for name in strange},
        })  # fmt: skip
        if table.canaries:
            self.file("[teacher]", "canaries", table.canaries)
        if table.use in ("openai.v1", "anthropic.v1"):
            self.paid(table, "[teacher]", ("budget_usd", *PRICES))

    def fairness(self, table: FairnessTable | None, task: Task | None) -> None:
        if table is None:
            return
        known = list(task.output.labels) if task else []
        strange = [label for label in table.selected if task and label not in known]
        if table.swaps not in ("", "built-in"):
            self.file("[fairness]", "swaps", table.swaps)
        self.say("[fairness]", {
            **{f"selected names no label {one!r}. {registry.suggest(one, known)}": True for one in strange if known},
            "tolerance without groups has nothing to judge": table.tolerance is not None and not table.groups,
            "selected without groups has nothing to show": bool(table.selected) and not table.groups,
            "selection_ratio without selected has nothing to judge": table.selection_ratio is not None and not table.selected,
            "error_ratio without groups has nothing to judge": table.error_ratio is not None and not table.groups,
            "amplified without groups or swaps has nothing to judge": table.amplified is not None and not (table.groups or table.swaps),
            "teacher_pairs without swaps asks nothing": table.teacher_pairs > 0 and not table.swaps,
            "an attribute is named twice in groups": len(set(table.groups)) < len(table.groups),
        })  # fmt: skip

    def committee(self, teacher: TeacherTable | None) -> list[MemberTable]:
        found: list[MemberTable] = []
        for where, raw in self.entries("committee"):
            table = self.read(raw, MemberTable, where)
            if table is None:
                continue
            member = dataclasses.replace(table, name=table.name or table.model)
            found.append(member)
            moving = moving_model(member.model, member.revision or ("0" if member.path else ""))
            known = registry.names("teachers")
            self.say(where, {
                f"no part named {member.use!r} among teachers. {registry.suggest(member.use, known)}":
                    member.use not in known and not _is_function(member.use),
                "model is missing; name the exact model that gives the answers": not member.model,
                moving or "": bool(member.model and moving),
                "terms is missing; each member needs an attestation of its own": not member.terms,
                "budget_usd belongs in [teacher]: one cap holds for all": member.budget_usd is not None,
            })  # fmt: skip
            if member.path and (data := self.file(where, "committee path", member.path)) is not None:
                self.digests[f"recording {member.name}"] = _sha256(data)
            if member.use in ("openai.v1", "anthropic.v1"):
                self.paid(member, where, PRICES)
        self.unique([m.name for m in found], "[[committee]]", "give each a `name` of its own")
        voters = 1 + sum(not m.arbiter for m in found)
        rule = teacher.agreement if teacher is not None else "majority"
        self.say("[[committee]]", {
            "two arbiters; one decides": sum(m.arbiter for m in found) > 1,
            "an arbiter needs somebody to disagree: add a member without `arbiter`": bool(found) and voters < 2,
            'agreement = "dawid-skene" needs three voters: with two nobody can tell who errs': rule == "dawid-skene" and voters < 3,
        })  # fmt: skip
        return found

    def judge(self, table: JudgeTable | None, teacher: TeacherTable | None, task: Task | None) -> str:
        """Its own instructions, if any."""
        if table is None or not table.use:
            self.say("[judge]", {'use is missing; name "openai.v1", "anthropic.v1" or "recorded.v1"': bool(self.raw.get("judge"))})
            return ""
        known, paid = registry.names("teachers"), table.use in ("openai.v1", "anthropic.v1")
        moving = moving_model(table.model, table.revision or ("0" if table.path else ""))
        self.say("[judge]", {
            f"no part named {table.use!r} among teachers. {registry.suggest(table.use, known)}":
                table.use not in known and not _is_function(table.use),
            "model is missing; name the exact model that judges": not table.model,
            moving or "": bool(table.model and moving),
            **{f"{key} is for teachers; a judge is asked once about each row": True for key in NOT_A_JUDGES if key in self.raw["judge"]},
            "budget_usd belongs in [teacher]: one cap holds for all": table.budget_usd is not None,
            "[teacher] budget_usd is missing; the judge is paid under the same cap":
                paid and teacher is not None and teacher.budget_usd is None,
            "path is missing; recorded.v1 needs the file of the judge's answers": table.use == "recorded.v1" and not table.path,
            **{f"an input field of the task is called {name!r}; rename it": True
               for name in (set(judge_fields(task.output)) & set(task.input) if task else ())},
            **{f"{key} is for a judge of labels; texts are only measured": key in self.raw["judge"]
               for key in (("may", "share") if task is not None and isinstance(task.output, Text) else ())},
        })  # fmt: skip
        if table.path and (data := self.file("[judge]", "judge path", table.path)) is not None:
            self.digests["recording judge"] = _sha256(data)
        if paid:
            self.paid(table, "[judge]", PRICES)
        text = self.file("[judge]", "judge prompt", table.prompt) if table.prompt else None
        said = (text or b"").decode("utf-8", "replace")
        self.say(f"[judge]: prompt = {table.prompt!r}", {"is empty": text is not None and not said.strip(), "is not UTF-8": "\ufffd" in said})
        return said

    def paid(self, table: TeacherTable, where: str, needed: Sequence[str]) -> None:
        address, variable = urlsplit(table.base_url), table.api_key_env
        absent = [k for k in needed if getattr(table, k) is None]
        self.say(where, {
            f'base_url = {table.base_url!r}; write "https://HOST/v1"':
                address.scheme not in ("http", "https") or not address.hostname,
            "api_key_env must be the NAME of a variable in capitals, never the key itself":
                bool(variable) and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable),
            **{f"{key} is missing; without it no paid call is made": True for key in absent},
        })  # fmt: skip

    def rest(self, tables: Mapping[str, Any]) -> None:
        owner, bars, chosen, traffic = tables["owner"], tables["bars"], tables["promptset"], tables["traffic"]
        shares = list(tables["sizing"].budgets) if tables["sizing"] is not None else []
        odd = bool(shares) and (shares[-1] != 1 or sorted(set(shares)) != shares)
        self.say("[sizing]", {f"budgets = {shares!r}; write shares that ascend to 1.0, or [] for none": odd})
        if owner is not None:
            why = is_person(owner.name, owner.email)
            self.say("[owner]", {
                why or "": why is not None,
                "deputy is the owner; name somebody else": owner.deputy.casefold() == owner.name.casefold(),
                f"review_every = {owner.review_every!r}; from 7d to 180d": not 7 <= owner.review_days <= 180,
            })  # fmt: skip
        empty = bars is not None and bars.accuracy is None and bars.fidelity is None
        self.say("[bars]", {"neither accuracy nor fidelity has a bar; nothing could be proven": empty})
        privacy = tables["privacy"]
        silent = privacy is not None and privacy.mode == "off" and not privacy.reason.strip()
        self.say("[privacy]", {'mode = "off" writes personal data as it came; give a reason': silent})
        dials = tables["serve"]
        both = dials is not None and None not in (dials.accuracy_when_confident, dials.wrong_when_served)
        self.say("[serve]", {"accuracy_when_confident and wrong_when_served are two dials for one thing; keep one": both})
        self.say("[serve]", dict.fromkeys(stage_problems(dials.stages) if dials is not None else (), True))
        self.say("[watch]", dict.fromkeys(watch_problems(tables["watch"]) if tables["watch"] is not None else (), True))
        self.say("[notify]", dict.fromkeys(notify_problems(tables["notify"]) if tables["notify"] is not None else (), True))
        own = tables["gate"].checks if tables["gate"] is not None else ()
        strange = [one for one in own if one not in registry.names("checks") and not _is_function(one)]
        self.unique(list(own), "[gate] checks", "name each once")
        self.say("[gate]", {f"checks: no check named {one!r}. {registry.suggest(one, registry.names('checks'))}": True for one in strange})
        probing = tables["probe"]
        self.say("[probe]", dict.fromkeys(probe_problems(probing) if probing is not None else (), True))
        if probing is not None and probing.cases:
            self.file("[probe]", "cases", probing.cases)
        proof = tables["proof"]
        if proof is not None and dials is not None:
            budget = dials.wrong_when_served is not None
            self.say("[proof]", {
                "by_cost spends one budget over all slices; set [serve] wrong_when_served": proof.by_cost and not budget,
                'ship = "all" is about a bar for each slice; wrong_when_served has one threshold for all traffic':
                    proof.ship == "all" and budget,
                f"expires = {proof.expires!r}; from 1d to 365d": not 1 <= proof.expires_days <= 365,
            })  # fmt: skip
        taken = chosen.test_share + chosen.calibration_share if chosen is not None else 0.0
        full = f"test_share + calibration_share = {taken:.2f} leaves no rows to learn from"
        self.say("[promptset]", {full: taken >= 1 - 1e-9})
        formats = sorted({n.partition(".")[0] for n in registry.names("importers")})
        fields = (tables["task"].input if tables["task"] is not None else ()) if traffic is not None and traffic.template else ()
        lost = [name for name in fields if "{" + name + "}" not in traffic.template]
        self.say("[traffic]", {f"template has no place {{{name}}} for the input field": True for name in lost})
        if traffic is not None and traffic.source.partition(":")[0] not in ("log", "gateway", *formats):
            text = f'source = {traffic.source!r}; write "log" or "FORMAT:FILES", FORMAT one of {", ".join(formats)}'
            self.say("[traffic]", {text: True})


def _is_function(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name) is not None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
