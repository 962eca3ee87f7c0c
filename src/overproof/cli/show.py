"""The verbs that print what is there: show and diff."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, EXIT_REFUSED, DataError, TermsError

if TYPE_CHECKING:
    from overproof.pipeline import RunResult

WHAT = (
    "traffic", "skipped", "terms", "prompts", "labels", "dropped", "filter", "judge", "teacher", "report", "candidates", "baselines", "calibration", "certificate",
    "groups", "flips", "probes", "outlook", "sizes", "verdict", "dossier", "decisions",
)  # fmt: skip
SOME = 20  # rows of a listing on a screen; --json has all


@click.command(short_help="Print a result of the last run.", help=f"Print WHAT: {', '.join(WHAT)}. With decisions: all, or those about one RELEASE.")
@click.argument("what", metavar="WHAT")
@click.argument("release", default="")
@click.option("--run", "run_id", default=None, help="A run id; the last run where absent.")
@click.option("--recompute", is_flag=True, help="With certificate: rebuild every bound from its counts, offline.")
@verb
def show(door: Door, what: str, release: str, run_id: str | None, recompute: bool) -> int:  # noqa: FBT001 - click passes flags by name
    """Print one result of a run."""
    what = "prompts" if what == "promptset" else what  # the stage's name is as good as the result's
    if what not in WHAT:
        from overproof.registry import suggest

        raise DataError(f"there is nothing called {what!r} to show. {suggest(what, list(WHAT))}", next_action="use one of the names")
    if release and what != "decisions":
        raise DataError(f"{what} is that of a run, not of {release!r}", next_action=f"write `overproof show {what} --run RUN`")
    if recompute and what != "certificate":
        raise DataError(f"{what} has no bounds to rebuild", next_action="write `overproof show certificate --recompute`")
    project = door.load()
    if what == "terms":
        return _terms(door, project)
    from overproof.store.project_store import open_store

    if not (project.root / ".overproof").is_dir():
        raise DataError("the project has no store yet", next_action="run `overproof import FILES` first")
    with open_store(project.root) as store:
        if what in ("traffic", "skipped"):
            return _log(door, store, what)
        if what == "decisions":
            from overproof.cli.decisions_page import decisions_page

            decisions_page(door, store, release)
            return EXIT_PASS
        from overproof.pipeline import load_run
        from overproof.runs import today_of

        if recompute:
            return _recompute(door, load_run(store, run_id))
        _result(door, load_run(store, run_id), what, today=today_of(store).isoformat())
    return EXIT_PASS


def _recompute(door: Door, result: RunResult) -> int:
    """Every bound again from the counts that the report holds; no row is read."""
    from rich.markup import escape

    from overproof.cli.walk import find
    from overproof.steps.certificates import report_differences

    report = find(result, "report") or _missing("certificate")
    found = report_differences(report)
    certificates = [c for c in (report.certificate, report.other) if c is not None]
    points = sum(len(s.counts) for c in certificates for s in c.slices)
    body = {"differences": found, "certificates": [c.label_kind for c in certificates], "counts": points}
    good = f"[green]every bound follows from its counts[/]: {len(certificates)} certificate(s), {points} grid points"
    door.emit(body, *([f"[bold red]differs:[/] {escape(line)}" for line in found] or [good]))
    return EXIT_REFUSED if found else EXIT_PASS


def _log(door: Door, store: Any, what: str) -> int:
    from rich.markup import escape

    from overproof.cli.tables import grid

    if what == "skipped":
        rows = list(store.traffic.skipped())
        table = grid(f"Kept aside: {len(rows)} rows that could not be read", "where", "reason", "as found")
        for row in rows[:SOME]:
            table.add_row(escape(row.where), escape(row.reason), escape(row.raw[:60]))
        door.emit(rows, table, *_rest(len(rows)))
        return EXIT_PASS
    counts = store.traffic.counts()
    values: dict[str, dict[str, int]] = {}
    first = last = None
    for record in store.traffic.read():
        first, last = first or record.request.at, record.request.at or last
        for key, value in record.request.attributes.items():
            table_of = values.setdefault(key, {})
            table_of[value] = table_of.get(value, 0) + 1
    table = grid(f"Traffic log: {counts.records} rows, {first or 'no times'} to {last or 'no times'}", "attribute", "value", "rows", right=(2,))
    for key, found in values.items():
        for value, n in sorted(found.items(), key=lambda item: -item[1])[:SOME]:
            table.add_row(escape(key), escape(value[:40]), str(n))
    door.emit({"counts": counts, "first": first, "last": last, "attributes": values}, table)
    return EXIT_PASS


def _result(door: Door, result: RunResult, what: str, *, today: str) -> None:
    from overproof.cli import tables
    from overproof.cli.ahead import outlook_page
    from overproof.cli.promptset import prompts_page
    from overproof.cli.walk import find

    if what == "dossier":
        path = result.dossier_path or _missing(what)
        door.emit({"dossier": str(path)}, path)
    elif what == "verdict":
        verdict = result.verdict or _missing(what)
        door.emit(verdict, *tables.verdict_page(verdict, everything=True))
    elif what == "prompts":
        prompts = find(result, "prompts") or _missing(what)
        door.emit(prompts, tables.funnel_table(prompts.funnel, {}), *_match(prompts), *prompts_page(prompts))
    elif what in ("groups", "flips", "probes"):
        from overproof.cli import fairness, probes_page

        door.emit(*(probes_page.page(find(result, what), result) if what == "probes" else fairness.page(what, find(result, what), result)))
    elif what == "sizes":
        from overproof.cli.sizes_page import sizes_told

        seen = find(result, "evidence") or _missing(what)
        if seen.sizing is None and seen.compression is None:
            raise DataError("the run compared no sizes", next_action="set [sizing] budgets, then run `overproof run`")
        door.emit(*sizes_told(seen.sizing, seen.compression))
    elif what == "filter":
        from overproof.cli.filter_table import emit_rules

        emit_rules(door, find(result, "labels") or _missing(what), find(result, "suspicion"), getattr(find(result, "judge"), "report", None))
    elif what == "judge":
        from overproof.cli.judge_page import emit_judge

        emit_judge(door, find(result, "judge"), find(result, "judged"))
    elif what == "teacher":
        _teacher(door, result)
    elif what == "baselines":
        from overproof.cli.standing import baselines_page

        door.emit(*baselines_page(find(result, "report") or _missing(what), find(result, "standing") or _missing(what)))
    elif what in ("labels", "dropped"):
        _labels(door, find(result, "labels") or _missing(what), what)
    else:
        report = find(result, "report") or _missing(what)
        pages: dict[str, Iterable[Any]] = {
            "report": [*tables.weak_labels_page(report), tables.slices_table(report, labels=True), *_ceiling(find(result, "summary")), *outlook_page(report)],
            "outlook": outlook_page(report),
            "candidates": [tables.candidates_table(report)],
            "certificate": tables.certificates_page(report, today=today),
        }
        if what == "calibration":
            from overproof.cli.calibration import calibration_page

            pages[what] = calibration_page(report)
        calibrations = [c.calibration for c in report.candidates if c.calibration is not None]
        values = {
            "outlook": report.outlook, "report": report, "candidates": report.candidates, "certificate": report.certificate,
            "calibration": calibrations,
        }  # fmt: skip
        door.emit(values[what], *pages[what])


def _ceiling(data: Any) -> Iterable[str]:
    if data is not None and data.ceiling is not None and data.ceiling.source:
        yield data.ceiling.sentence


def _missing(what: str) -> NoReturn:
    raise DataError(f"the run has no {what}: it did not get that far", next_action="run `overproof run`")


def _match(prompts: Any) -> Iterable[Any]:
    from rich.markup import escape

    from overproof.cli.tables import grid, percent

    if not prompts.match:
        return
    table = grid(f"Live traffic against prompt set, distance {prompts.distance:.3f}", "segment", "live", "n", "set", "n", right=range(1, 5))
    for m in prompts.match:
        table.add_row(escape(f"{m.attribute}={m.value}"), percent(m.live_share), str(m.n_live), percent(m.set_share), str(m.n_set))
    yield table
    yield from (f"  {escape(note)}" for note in prompts.notes)


def _teacher(door: Door, result: RunResult) -> None:
    """Where the teacher is wrong, and what the chosen student took over."""
    from rich.markup import escape

    from overproof.cli.teacher_page import teacher_lines
    from overproof.cli.walk import find

    errors = find(result, "teacher")
    if errors is None:
        raise DataError("nobody has reviewed a row before this run", next_action="run `overproof review`, then `overproof run`")
    report = find(result, "report")
    inherited = [s for c in report.candidates if c.name == report.chosen for s in c.slices if s.kind == "label"] if report else []
    body = {"teacher": errors, "inherited": {s.slice: s.two_by_two for s in inherited}}
    door.emit(body, *map(escape, teacher_lines(errors, inherited=inherited)))


def _labels(door: Door, labelled: Any, what: str) -> None:
    from rich.markup import escape

    from overproof.cli.tables import funnel_table, grid

    if what == "dropped":
        table = grid(f"Dropped: {len(labelled.dropped)} rows", "split", "by", "reason", "answer")
        for d in labelled.dropped[:SOME]:
            table.add_row(d.split, escape(d.by), escape(d.reason), escape(d.text[:40]))
        door.emit(labelled.dropped, table, *_rest(len(labelled.dropped)))
        return
    splits = (labelled.train, labelled.calibration, labelled.test)
    counts = {label: [sum(e.target == label for e in s.examples) for s in splits] for label in labelled.train.labels}
    title = ("Labels per split", "label")
    if not counts:  # records and texts have no labels to count
        title = ("Answers per split", "what")
        counts = _written([[e.target for e in s.examples] for s in splits])
    table = grid(*title, "train", "calibration", "test", right=(1, 2, 3))
    for label, row in counts.items():
        table.add_row(escape(label), *(str(n) for n in row))
    door.emit({"counts": labelled.counts, "labels": counts}, table, "", funnel_table({}, labelled.counts))


def _written(splits: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Rows, different answers, and for records the values given for each field."""
    from overproof.steps.propose import read_json

    found = {"answers": [len(rows) for rows in splits], "different answers": [len(set(rows)) for rows in splits]}
    records = [[record for text in rows if isinstance(record := read_json(text), dict)] for rows in splits]
    names = dict.fromkeys(name for rows in records for record in rows for name in record)
    return found | {f"{name} given": [sum(r.get(name) is not None for r in rows) for rows in records] for name in names}


def _rest(n: int) -> Iterable[str]:
    if n > SOME:
        yield f"and {n - SOME} more; --json prints all"


def _terms(door: Door, project: Any) -> int:
    """Clauses, what they ask of an attestation, and whether the record brings it; needs no run."""
    import time

    from rich.markup import escape

    from overproof.asking import terms_of
    from overproof.cli.setup import cleared
    from overproof.steps.clear import DISCLAIMER, registry_digest, sentence, student_kind
    from overproof.steps.terms import posture

    terms = terms_of(project)
    kind = student_kind([p.use for p in project.students], written=project.task.written is not None)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    found = posture(
        terms.entries, student_kind=kind, distribution=project.teacher.distribution, today=today, bases=terms.bases
    )
    clearance, problem = None, None
    try:
        clearance = cleared(project)
    except TermsError as error:
        problem = error.what
    made = _labels_under(project, clearance)
    by = terms.attestation
    lines = [
        f"[bold]{escape(' + '.join(e.id for e in terms.entries))}[/] for a {kind}, {project.teacher.distribution}: {found.word}",
        "registry_digest to write:",
        f"  {registry_digest(terms.entries)}",
        *(f"  layer: {escape(str(layer))}" for layer in found.layers),
        *(f"  {escape(sentence(d, c))}" for d, c in found.cited),
        *(f"  obligation: {o}" for o in found.obligations),
        *(f"  to answer under \\[conditions]: {escape(c)}" for c in found.conditions),
        *(f"  evidence asked for: {' or '.join(kinds)}" for kinds in found.evidence),
        *(["  a second person is asked for"] if found.second_person else []),
        f"{escape(by.attested_by.name) or 'Nobody'} attested on {escape(by.attested_on) or 'no date'}: «{escape(by.statement)}»",
        *([f"[bold red]{escape(problem)}[/]"] if problem else ["[green]the record covers this use[/]"]),
        *(escape(line) for line in made),
        DISCLAIMER,
    ]
    body = {
        "posture": found, "attestation": by, "entries": terms.entries, "problem": problem, "labels": made, "note": DISCLAIMER,
    }  # fmt: skip
    door.emit(body, *lines)
    return TermsError.exit_code if problem else EXIT_PASS


def _labels_under(project: Any, clearance: Any) -> list[str]:
    """Labels by the record that they were bought under, and whether the present one takes them over."""
    if not (project.root / ".overproof").is_dir():
        return []
    from overproof.asking import NOT_LEARNED, honoured
    from overproof.runs import runs_of
    from overproof.store.project_store import open_store

    with open_store(project.root) as store:
        minted = {d.subject: d.body for d in store.decisions.read() if d.kind == "clearance"}
        counts = {k: n for k, n in store.ledger.under().items() if k != NOT_LEARNED}
        good = honoured(store, clearance) if clearance else frozenset()
        releases = sum(r.outcome == "release" for r in runs_of(store))
    lines = []
    for clearance_id, n in counts.items():
        record = minted.get(clearance_id, {}).get("record", clearance_id[:12])
        fate = "in use" if clearance_id in good else f"set aside until a record names {record!r} under supersedes"
        lines.append(f"{n:,} labels were bought under {record!r}: {fate if clearance else 'set aside until a record covers this use'}")
    if counts and clearance is None and releases:
        lines.append(f"{releases} release(s) of this project stand on such labels: whether they go on serving is for a person to decide")
    return lines


@click.command(short_help="Compare two runs slice by slice.")
@click.argument("a")
@click.argument("b")
@verb
def diff(door: Door, a: str, b: str) -> int:
    """Compare runs A and B (ids from `status`) slice by slice; a change counts only where the intervals are apart."""
    from overproof.cli.tables import compare_table, comparison
    from overproof.cli.walk import find
    from overproof.pipeline import load_run
    from overproof.store.project_store import open_store

    project = door.load()
    with open_store(project.root) as store:
        first, second = load_run(store, a), load_run(store, b)
        left, right = find(first, "report"), find(second, "report")
        if left is None or right is None:
            _missing("evaluation")
        body = {"a": a, "b": b, "verdicts": [type(r.verdict).__name__ for r in (first, second)], "slices": comparison(left, right)}
        door.emit(body, compare_table(left, right, (a, b)), "intervals that overlap say nothing about a change")
    return EXIT_PASS
