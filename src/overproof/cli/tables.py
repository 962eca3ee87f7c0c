"""How values look in a terminal: tables and sentences in which each figure has its interval, its n and its bar."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from overproof.cli.asked_cost import asked_lines
from overproof.cli.judge_page import cost_line
from overproof.evidence import (
    CandidateReport,
    Certificate,
    EvalReport,
    Figure,
    Finding,
    Refusal,
    Release,
    SliceReport,
)

WORDS = {
    "pass": "[green]pass[/]", "fail": "[bold red]fail[/]", "undecided": "[yellow]not enough data[/]",
    "not-run": "[yellow]not run[/]", "waived": "[magenta]waived[/]", None: "",
}  # fmt: skip
WIDE = 9  # so many columns fit 80 characters only with one space between them
MOST_OF_A_CHECK = 3  # findings of one check and outcome on a screen
EXPIRY_AHEAD = 14  # days
MOST_DROPS = 6  # reasons in the funnel before "and more"


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """Rows that a bar asks for, against the rows there are."""

    slice: str
    metric: str
    bar: float
    rows_needed: int | None
    """Sealed rows for an 80 % chance to pass, if the true error is half of what the bar admits."""
    rows_expected: int
    """Sealed rows of this slice that there are for it, at the present traffic and window."""
    kind: str = "bar"
    """"bar", "margin" (not worse than the teacher) or "threshold" (kept rows that certify one)."""


def percent(value: float | None) -> str:
    """
    A fraction as people read it.

    Args:
        value: in [0, 1], or None where n = 0.

    Returns: one decimal, or a dash.
    """
    return "-" if value is None else f"{100 * value:.1f}%"


def interval(figure: Figure) -> str:
    """
    Where the truth lies.

    Args:
        figure: a measured fraction.

    Returns: both ends, in per cent.
    """
    return f"{100 * figure.low:.1f}-{100 * figure.high:.1f}"


class Sheet(Table):
    """A plain table that fits 80 columns; its heading and note are as wide as the screen, not as the columns."""

    heading = ""
    note = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Heading, table, note."""
        if self.heading:
            yield Text.from_markup(f"[bold]{self.heading}[/]")
        yield from super().__rich_console__(console, options)
        if self.note:
            yield Text(self.note, style="dim")


def grid(heading: str, *columns: str, right: Iterable[int] = ()) -> Sheet:
    """
    A table to fill.

    Args:
        heading: what it shows, with markup.
        columns: headings of the columns.
        right: columns of figures, counted from 0.

    Returns: the table, without rows.
    """
    gap = 2 if len(columns) < WIDE else 1
    table = Sheet(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    table.heading = heading
    numbers = set(right)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in numbers else "left", header_style="dim", overflow="fold")
    return table


def step_line(name: str, action: str, seconds: float, why: str) -> Text:
    """
    One step as it ends.

    Args:
        name: the step.
        action: "run", "reuse", "stale" or "waits".
        seconds: how long it took.
        why: why it ran; empty for reuse.

    Returns: a line.
    """
    style = {"run": "cyan", "reuse": "dim", "stale": "yellow", "waits": "yellow"}.get(action, "")
    took = f"{seconds:7.2f} s" if action == "run" else " " * 9
    return Text.assemble(("  " + f"{action:6}", style), f"{name:26}", (took, "dim"), ("  " + why if why else "", "dim"))


def check_page(body: Mapping[str, Any]) -> Iterator[Any]:
    """
    What `check` shows.

    Args:
        body: what `check --json` prints.

    Returns: lines and tables.
    """
    pin, cost = body["teacher"], body["cost"]
    yield f"[bold]{escape(body['file'])}[/]: task {escape(body['task'])!r}, {escape(body['output'])}"
    yield f"  teacher    {escape(pin.model)} through {escape(pin.use)}, revision {escape(pin.revision[:12]) or 'in the name'}"
    yield f"  students   {escape(', '.join(s.name for s in body['students']))}"
    if len(body["students"]) == 1:
        yield f"             [yellow]one student only[/]: the gate asks for two sizes; next on the ladder: {escape(body['next_size'] or 'none that is installed')}"
    yield f"  baselines  {escape(', '.join(body['baselines']))}"
    if "recording" in body["digests"]:
        yield f"  recording  {body['digests']['recording']}"
    state = f"[green]covered[/], posture of the texts: {body['terms']}" if body["terms"] else "[bold red]not covered[/], see below"
    yield f"  terms      {state}"
    yield f"  traffic    {body['traffic_rows']} rows in the log"
    yield f"  next run   at most {cost['usd']:.2f} USD: {cost['how']}"
    yield from cost_line(body["judge"])
    yield from asked_lines(body["asked"])
    if body["traffic_rows"]:
        yield ""
        yield needs_table(body["needs"])
    if body["terms"]:
        yield f"[bold]next:[/] {body['next']}"


def needs_table(needs: Sequence[Need]) -> Sheet:
    """
    Rows that each bar asks for.

    Args:
        needs: one per slice and metric.

    Returns: a table.
    """
    table = grid("Sealed rows asked for (80% chance to pass, if the true error is half of what is admitted)",
                 "slice", "metric", "bar", "needs", "has about", "", right=(2, 3, 4))  # fmt: skip
    for need in needs:
        enough = need.rows_needed is not None and need.rows_expected >= need.rows_needed
        needed = "over 10^6" if need.rows_needed is None else str(need.rows_needed)
        lacking = "too few" if need.rows_needed is None else f"{need.rows_needed - need.rows_expected} too few"
        word = "[green]enough[/]" if enough else f"[yellow]{lacking}[/]"
        table.add_row(escape(need.slice), need.metric, percent(need.bar), needed, str(need.rows_expected), word)
    table.note = (
        "not worse: served against teacher, within the margin, rows with gold; threshold: kept rows that certify one for "
        "the slice; has about: what the configured window and shares supply, before the filter"
    )
    return table


def import_page(body: Mapping[str, Any]) -> Iterator[Any]:
    """
    What `import` shows.

    Args:
        body: what `import --json` prints.

    Returns: a table and what to do next.
    """
    if learned := body.get("template"):
        yield from _frame_page(learned)
    table = grid("Imported", "file", "format", "read", "added", "there", "skipped", "conflicts", right=(2, 3, 4, 5, 6))
    for row in body["files"]:
        counts = [str(row[k]) for k in ("read", "added", "already_there", "skipped", "conflicts")]
        table.add_row(escape(row["file"]), row["format"], *counts)
    yield table
    for row in body["files"]:
        yield from _file_notes(row)
    if left := body.get("not_read"):
        yield f"not read, by their names no logs: {len(left)} files, for example {escape(left[0])}"
    log = body["log"]
    replaced = [f"{n} x {kind}" for row in body["files"] for kind, n in row["redacted"].items()]
    if replaced:
        yield f"replaced before writing: {', '.join(replaced)}"
    yield f"the log holds {log['rows']} rows"
    for reason, n in log["skipped"].items():
        yield f"  kept aside: {n} x {escape(reason)}"
    if log["conflicts"]:
        yield f"  kept aside: {log['conflicts']} with a known id and other content; --replace takes the newer"
    yield "[bold]next:[/] overproof check" if log["rows"] else "[bold]next:[/] overproof show skipped"


def _frame_page(learned: Mapping[str, Any]) -> Iterator[Any]:
    """The template that was learned, as a line for the project file, with what it takes out of three prompts."""
    yield f"[bold]template[/] fits {learned['fitting']} of {learned['n']} sampled prompts; keep it in overproof.toml:"
    yield escape(f"[traffic]\ntemplate = {json.dumps(learned['text'], ensure_ascii=False)}")
    if not learned["by_name"]:
        yield "its parts took the input fields in their order; look at the examples"
    for one in learned["examples"]:
        yield escape("  " + " | ".join(f"{name}: {text[:60]!r}" for name, text in one.items()))


def _file_notes(row: Mapping[str, Any]) -> Iterator[str]:
    """What a file held beside the rows that were taken; a line each, nothing where there was nothing."""
    name = escape(row["file"])
    if row.get("why"):
        yield f"{name}: {row['format']}, by {escape(row['why'])}"
    for key, said in (("passed", "passed over"), ("ignored", "fields not taken")):
        if found := row.get(key):
            shown = ", ".join(f"{what} x{n}" for what, n in list(found.items())[:MOST_DROPS])
            more = f" and {len(found) - MOST_DROPS} more" if len(found) > MOST_DROPS else ""
            yield escape(f"  {said}: {shown}{more}")


def funnel_table(funnel: Mapping[str, int], counts: Mapping[str, int]) -> Sheet:
    """
    From rows read to rows learned from.

    Args:
        funnel: of the prompt set.
        counts: of the filter.

    Returns: a table whose counts account for every row.
    """
    table = grid("From traffic to rows", "", "rows", right=(1,))
    for what, n in funnel.items():
        table.add_row(escape(what), str(n))
    if counts:
        table.add_section()
        for what, n in list(counts.items())[: 3 + MOST_DROPS]:
            table.add_row(escape(what), str(n))
        if len(counts) > 3 + MOST_DROPS:
            table.add_row(f"and {len(counts) - 3 - MOST_DROPS} more reasons (`overproof show dropped`)", "")
    return table


def chosen_of(report: EvalReport) -> CandidateReport | None:
    """
    The candidate that may be released.

    Args:
        report: the evaluation.

    Returns: its report, or None where none was chosen.
    """
    return next((c for c in report.candidates if c.name == report.chosen), None)


def slices_table(report: EvalReport, *, labels: bool = False) -> Sheet:
    """
    The served system on each slice against its bars.

    Args:
        report: the evaluation.
        labels: also slices that are labels.

    Returns: a table; critical slices are marked.
    """
    table = grid("Served: student where it may answer, teacher elsewhere; sealed rows that chose no threshold",
                 "slice", "kept", "metric", "value", "95%", "n", "bar", "verdict", "needs", right=(1, 3, 4, 5, 6, 8))  # fmt: skip
    chosen = chosen_of(report)
    for row in chosen.slices if chosen else ():
        for figure in (row.served_fidelity, row.served_accuracy):
            plain = row.kind in ("all", "attribute") or row.critical
            if figure is not None and (labels or (plain and (figure.bar is not None or row.slice == "all"))):
                table.add_row(*_slice_cells(row, figure))
    table.note = "kept: share that the student answers itself; ! marks critical slices; needs: about so many more rows"
    return table


def _slice_cells(row: SliceReport, figure: Figure) -> list[str]:
    name = escape(row.slice) + (" [bold]![/]" if row.critical else "")
    kept = percent(row.kept.value) if row.kept is not None else "-"
    more = f"+{figure.rows_needed}" if figure.verdict == "undecided" and figure.rows_needed else ""
    bar = "" if figure.bar is None else percent(figure.bar)
    metric = figure.metric.removeprefix("served_")
    return [name, kept, metric, percent(figure.value), interval(figure), str(figure.n), bar, WORDS[figure.verdict], more]


def candidates_table(report: EvalReport) -> Sheet:
    """
    All candidates on the same sealed rows, each alone.

    Args:
        report: the evaluation.

    Returns: a table; the chosen one is marked.
    """
    table = grid("Candidates alone, on all sealed rows", "", "fidelity", "95%", "accuracy", "95%", "ms", "USD/1000", "MB",
                 right=range(1, 8))  # fmt: skip
    for c in report.candidates:
        whole = c.slices[0] if c.slices else None
        cells = []
        for figure in (whole.fidelity if whole else None, whole.accuracy if whole else None):
            cells += [percent(figure.value), interval(figure)] if figure is not None else ["-", ""]
        name = ("[bold]> [/]" if c.name == report.chosen else "  ") + escape(c.name)
        cost = f"{c.cost_usd_per_1000:.2g}"
        table.add_row(name, *cells, f"{1000 * c.latency_s:.1f}", cost, f"{c.size_bytes / 1e6:.1f}")
    n, gold = report.n_test, report.n_gold
    table.note = f"n = {n} sealed rows, {gold} of them with gold; chosen on calibration rows: {report.reason}"
    return table


def certificates_page(report: EvalReport, *, today: str = "") -> Iterator[Any]:
    """
    Both certificates in their own words, the one that ships first, and the paired tests.

    Args:
        report: the evaluation.
        today: ISO date, to say what has ended; empty says nothing.

    Returns: tables and sentences.
    """
    from overproof.steps.certificates import other_words

    yield from certificate_page(report.certificate, today=today)
    yield ""
    if report.other is not None:
        yield from certificate_page(report.other, today=today, ships=False)
    if note := other_words(report):
        yield f"[bold]{escape(note)}[/]"
    yield from comparisons_page(report)


def comparisons_page(report: EvalReport) -> Iterator[Any]:
    """
    The paired tests on the judging rows; nothing where there are none.

    Args:
        report: the evaluation.

    Returns: a table.
    """
    tests = [("served, not worse", report.noninferiority), ("alone, better", report.superiority)]
    rows = [(what, t) for what, t in tests if t is not None]
    if not rows:
        return
    table = grid(f"{escape(report.chosen)}, paired on judging rows: b only ours wrong, c only the other",
                 "", "than", "labels", "b", "c", "n", "margin", "p", "verdict", right=range(3, 8))  # fmt: skip
    for what, t in rows:
        kind = "gold" if t.label_kind == "gold" else "teacher"
        margin = percent(t.margin) if t.margin > 0 else "-"
        table.add_row(escape(what), escape(t.against), kind, str(t.b), str(t.c), str(t.n), margin, f"{t.p:.2g}", WORDS[t.verdict])
    yield table


def certificate_title(certificate: Certificate) -> str:
    """
    What a certificate is of; agreement with the teacher is never called accuracy.

    Args:
        certificate: any certificate.

    Returns: for example "Certificate of agreement (G4, teacher:big): ...".
    """
    gold = certificate.label_kind == "gold"
    kind = "correctness" if gold else "agreement"
    wrong = "wrong answers" if gold else "answers unlike the teacher's"
    among = "kept, among all requests" if certificate.supports == "G2" else "among those that the student keeps"
    name = ", ".join(word for word in (certificate.supports, certificate.label_kind) if word)
    return f"Certificate of {kind} ({name}): {wrong} {among}"


def expiry_words(expires: str, today: str, *, ahead: int = EXPIRY_AHEAD) -> str:
    """
    Whether a certificate has ended or is about to.

    Args:
        expires: ISO date, the last day on which it holds.
        today: ISO date.
        ahead: days of warning.

    Returns: a sentence, or an empty text while the end is further away.
    """
    import datetime as dt

    left = (dt.date.fromisoformat(expires) - dt.date.fromisoformat(today)).days
    if left < 0:
        return f"the certificate ran out on {expires}: it says nothing any more; run again on newer traffic"
    if left <= ahead:
        return f"the certificate runs out on {expires}, in {left} day(s): run again on newer traffic before that"
    return ""


def certificate_page(certificate: Certificate, *, today: str = "", ships: bool = True) -> Iterator[Any]:
    """
    What is certified, and on what assumptions.

    Args:
        certificate: from the evaluation.
        today: ISO date, to say what has ended; empty says nothing.
        ships: whether the thresholds ship under this one; the other one's assumptions are the same, but for the labels.

    Returns: a table and sentences.
    """
    from overproof.steps.certificates import walk_words, whole_traffic

    table = grid(escape(certificate_title(certificate)) + ("" if ships else " [dim](nothing ships under it)[/]"),
                 "slice", "from", "keeps", "95%", "wrong", "bound", "bar", "verdict", "needs",
                 right=(1, 2, 3, 4, 5, 6, 8))  # fmt: skip
    for s in certificate.slices:
        threshold = "teacher" if s.threshold is None else "all" if s.threshold < 0 else f"{s.threshold:.3f}"
        more = f"+{s.rows_needed}" if s.rows_needed else ""
        counted = s.kept > 0
        name = "all traffic" if whole_traffic(certificate) else s.slice
        table.add_row(escape(name), threshold, percent(s.keep_share.value), interval(s.keep_share), f"{s.wrong}/{s.kept}",
                      percent(s.upper) if counted else "-", percent(s.alpha), WORDS[s.verdict], more)  # fmt: skip
    yield table
    if today and (ends := expiry_words(certificate.expires, today)):
        yield f"[bold red]{ends}[/]"
    start, end = (moment[:10] if moment else "no times" for moment in certificate.window)
    if said := walk_words(certificate):
        yield escape(said)
    use = f"use {certificate.use_k} of these sealed rows, error budget spent {certificate.delta_spent:.4f}"
    if not ships:
        yield f"{use}, labels counted by {escape(certificate.label_kind)}"
        return
    yield f"{use}, traffic of {start} to {end}, valid until {certificate.expires}"
    if certificate.fixed:
        yield f"fixed before unsealing, hash {certificate.plan_hash[:12]}: {escape(fixed_words(certificate))}"
    yield "on these assumptions:"
    yield from (Padding("- " + escape(a), (0, 0, 0, 2)) for a in certificate.assumptions)


def fixed_words(certificate: Certificate) -> str:
    """
    What a certificate's hash covers.

    Args:
        certificate: any certificate.

    Returns: the names, weights counted together.
    """
    weights = sum(name.startswith("weights ") for name in certificate.fixed)
    names = [name for name in certificate.fixed if not name.startswith("weights ")]
    return ", ".join([*([f"weights of {weights} candidates"] if weights else []), *names])


def findings_page(findings: Sequence[Finding], *, everything: bool) -> Iterator[Any]:
    """
    The gate's findings, failing ones first.

    Args:
        findings: as the gate sorted them.
        everything: passing ones too.

    Returns: lines.
    """
    told: Counter[tuple[str, str]] = Counter()
    for f in findings:
        if f.outcome == "pass" and not everything:
            continue
        told[f.id, f.outcome] += 1
        if told[f.id, f.outcome] > MOST_OF_A_CHECK and not everything:
            continue
        where = f" [{f.slice}]" if f.slice else ""
        facts = {"value": f.value, "bound": f.bound, "bar": f.bar}
        figures = [f"{k} {v:.4g}" for k, v in facts.items() if v is not None] + ([f"n {f.n}"] if f.n is not None else [])
        shown = f" ({', '.join(figures)})" if figures and everything else ""
        yield f"{WORDS[f.outcome]} {f.id} {escape(f.title + where)}{shown}"
        action = f"\n[bold]next:[/] {escape(f.next_action)}" if f.next_action and f.outcome != "pass" else ""
        yield Padding(escape(f.reason) + action, (0, 0, 0, 4))
    more = {key: n - MOST_OF_A_CHECK for key, n in told.items() if n > MOST_OF_A_CHECK and not everything}
    for (check, outcome), n in more.items():
        yield f"{WORDS[outcome]} {check} and {n} more of this kind: see the dossier, or `overproof show verdict`"


def verdict_page(verdict: Release | Refusal, *, everything: bool = False) -> Iterator[Any]:
    """
    Release or refusal with its reasons.

    Args:
        verdict: the gate's word.
        everything: passing findings too.

    Returns: lines.
    """
    good = isinstance(verdict, Release)
    yield f"[bold {'green' if good else 'red'}]{'RELEASE' if good else 'REFUSED'}[/]  {escape(verdict.headline)}"
    passed = sum(f.outcome == "pass" for f in verdict.findings)
    yield f"{passed} of {len(verdict.findings)} checks pass" + ("" if passed == len(verdict.findings) else ". The others:")
    yield from findings_page(verdict.findings, everything=everything)
    if verdict.watched:
        from overproof.steps.headlines import watched_line

        yield escape(watched_line(verdict.watched)) + ("" if everything else "; see `overproof show probes`" if verdict.watched[0].id != "P00" else "")
        yield from findings_page(verdict.watched, everything=True) if everything else ()


def weak_labels_page(report: EvalReport) -> Iterator[Any]:
    """
    Labels on which the teacher itself is mostly wrong; nothing where there are none.

    Args:
        report: the evaluation.

    Returns: a table.
    """
    if not report.weak_labels:
        return
    table = grid("The teacher itself is wrong more often than right on these labels (against gold)",
                 "label", "teacher right", "95%", "n", right=(1, 2, 3))  # fmt: skip
    for row in report.weak_labels:
        figure = row.teacher_accuracy
        if figure is not None:
            table.add_row(escape(row.slice), percent(figure.value), interval(figure), str(figure.n))
    yield table


def compare_table(before: EvalReport, after: EvalReport, names: Sequence[str]) -> Sheet:
    """
    Two runs slice by slice.

    Args:
        before: evaluation of the first run.
        after: evaluation of the second run.
        names: their run ids.

    Returns: a table; a change counts as one only where the intervals are apart.
    """
    table = grid(f"{escape(names[0])} ({escape(before.chosen)}) against {escape(names[1])} ({escape(after.chosen)})",
                 "slice", "metric", "before", "95%", "n", "after", "95%", "n", "", right=range(2, 8))  # fmt: skip
    for row in comparison(before, after):
        left, right = row["before"], row["after"]
        cells = [x for f in (left, right) for x in ((percent(f.value), interval(f), str(f.n)) if f else ("-", "", ""))]
        table.add_row(escape(row["slice"]), row["metric"], *cells, {"no clear change": "-"}.get(row["word"], row["word"]))
    return table


def comparison(before: EvalReport, after: EvalReport) -> list[dict[str, Any]]:
    """
    The rows of `compare_table` as values.

    Args:
        before: evaluation of the first run.
        after: evaluation of the second run.

    Returns: one dict per slice and metric with both figures and "up", "down" or "no clear change".
    """
    sides = []
    for report in (before, after):
        chosen = chosen_of(report)
        sides.append({
            (s.slice, f.metric): f
            for s in (chosen.slices if chosen else ()) if s.kind != "novelty"
            for f in (s.served_fidelity or s.fidelity, s.served_accuracy or s.accuracy, s.kept) if f is not None
        })  # fmt: skip
    left, right = sides
    rows = []
    for key in dict.fromkeys([*left, *right]):
        a, b = left.get(key), right.get(key)
        word = "only in one"
        if a is not None and b is not None:
            word = "up" if b.low > a.high else "down" if b.high < a.low else "no clear change"
        rows.append({"slice": key[0], "metric": key[1].removeprefix("served_"), "before": a, "after": b, "word": word})
    return rows
