"""A release's papers beside the dossier: cards for people and hubs, one page for a manager, and what changed."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overproof.steps.bom import bill_of_materials, provenance
from overproof.verify import BEGIN, END, figure_rows

MODEL_CARD, DATA_CARD, SUMMARY, CHANGES, BOM, PROVENANCE = (
    "MODEL_CARD.md", "DATA_CARD.md", "summary.html", "changes.json", "bom.cdx.json", "provenance.intoto.jsonl",
)  # fmt: skip
NAMES = {
    "accuracy": "right, alone", "fidelity": "as the teacher, alone", "served_accuracy": "right, as served",
    "served_fidelity": "as the teacher, as served", "kept": "answered by the student",
}  # fmt: skip
COLUMNS = "| Slice | Figure | Value | Interval | Level | Method | n | Bar | Verdict |\n|---|---|---|---|---|---|---|---|---|"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Former:
    """The release before this one, as far as the two are compared."""

    id: str
    candidate: str
    expires: str
    """ISO date, the last day of its certificate."""
    figures: tuple[tuple[str, str, float | None, float, float, int], ...]
    """Slice, figure, value, both ends of its interval, n."""
    outcomes: Mapping[str, str]
    """Check to outcome."""


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What the papers say that no step has measured."""

    task: str
    """Name of the task."""
    output: str
    """"classes", "fields" or "text"."""
    input: tuple[str, ...]
    """Names of the input fields."""
    owner: str = ""
    """Name and address; empty where nobody is named."""
    deputy: str = ""
    out_of_scope: str = ""
    """The label that says "not for us", where the task has one."""
    redacted: tuple[str, ...] = ()
    """What is redacted before anything is stored."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """File of the project to SHA-256."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Package that serving needs to its version."""
    drift: str = ""
    """What is watched while it serves, in words."""
    former: Former | None = None
    """The release before; None for the first one."""


def write_papers(folder: Path, facts: Mapping[str, Any], about: About, bundle: Path | None) -> None:
    """
    Write cards, bill of materials, provenance, summary and changes beside `dossier.json`.

    Args:
        folder: of the dossier.
        facts: what `dossier.json` holds; all figures come from it.
        about: the rest.
        bundle: the packed candidate; None where there is none, and then no provenance.
    """
    changes = changes_from(facts, about.former)
    if changes is not None:
        (folder / CHANGES).write_text(json.dumps(changes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / MODEL_CARD).write_text(model_card(facts, about, changes), encoding="utf-8")
    (folder / DATA_CARD).write_text(data_card(facts, about), encoding="utf-8")
    (folder / SUMMARY).write_text(summary(facts, about, changes), encoding="utf-8")
    bom = bill_of_materials(facts, task=about.task, owner=about.owner, software=about.software, bundle=bundle)
    (folder / BOM).write_text(json.dumps(bom, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if bundle is not None:
        made = provenance(facts, task=about.task, digests=about.digests, bundle=bundle)
        (folder / PROVENANCE).write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def chosen_of(facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The chosen candidate's report out of the dossier's facts."""
    report = facts["evidence"].get("report")
    return next((one for one in report["candidates"] if one["name"] == report["chosen"]), None) if report else None


def former_of(facts: Mapping[str, Any]) -> Former:
    """
    What a later release is compared with.

    Args:
        facts: the dossier of a release.

    Returns: its figures and outcomes.
    """
    decision, chosen = facts["decision"], chosen_of(facts)
    return Former(
        id=decision["id"], candidate=decision["candidate"], expires=decision["certificate"]["expires"],
        figures=tuple((one["slice"], name, f["value"], f["low"], f["high"], f["n"]) for one, name, f in _figures(chosen)),
        outcomes={one["id"]: one["outcome"] for one in decision["findings"]},
    )  # fmt: skip


def changes_from(facts: Mapping[str, Any], former: Former | None) -> dict[str, Any] | None:
    """
    What is other than in the release before.

    Args:
        facts: of the present dossier.
        former: the release before.

    Returns: JSON values; None for a first release. A figure is called higher or lower only where the intervals don't touch: each
        stands on sealed rows of its own.
    """
    if former is None:
        return None
    before = {(where, name): (value, low, high, n) for where, name, value, low, high, n in former.figures}
    after = {(one["slice"], name): (f["value"], f["low"], f["high"], f["n"]) for one, name, f in _figures(chosen_of(facts))}
    rows = []
    for key in [*after, *(key for key in before if key not in after)]:
        old, new = before.get(key), after.get(key)
        word = "gone" if new is None else "new" if old is None else "higher" if new[1] > old[2] else "lower" if new[2] < old[1] else "no clear difference"
        rows.append({"slice": key[0], "figure": key[1], "before": _ends(old), "after": _ends(new), "word": word})
    now = {one["id"]: one["outcome"] for one in facts["decision"]["findings"]}
    checks = [
        {"check": name, "before": former.outcomes.get(name), "after": now.get(name)}
        for name in sorted({*now, *former.outcomes}) if now.get(name) != former.outcomes.get(name)
    ]  # fmt: skip
    return {"since": former.id, "candidate": {"before": former.candidate, "after": (chosen_of(facts) or {}).get("name")}, "figures": rows, "checks": checks}


def _ends(row: Sequence[Any] | None) -> dict[str, Any] | None:
    return None if row is None else dict(zip(("value", "low", "high", "n"), row, strict=True))


def _figures(chosen: Mapping[str, Any] | None) -> Iterator[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    for one in chosen["slices"] if chosen else ():
        for name in NAMES:
            if one.get(name):
                yield one, name, one[name]


def model_card(facts: Mapping[str, Any], about: About, changes: Mapping[str, Any] | None) -> str:
    """
    The model card in the form that hubs read; waivers and checks that were not run stand on its first screen.

    Args:
        facts: of the dossier.
        about: the rest.
        changes: since the release before.

    Returns: Markdown with YAML front matter.
    """
    decision, chosen, report = facts["decision"], chosen_of(facts), facts["evidence"].get("report")
    released, data = facts["verdict"] == "release", facts["evidence"].get("data")
    lines = [*_front(facts, about, chosen), f"# {about.task}: {chosen['name'] if chosen else 'no candidate'}", ""]
    lines += [f"**{'Released' if released else 'REFUSED: this model must not serve'}.** {_line(decision['headline'])}", "", *_open(decision), ""]
    lines += [
        "| | |", "|---|---|", f"| Release | {decision.get('id') or '-'} of {facts['date']}, overproof {facts['overproof']} |",
        f"| Owner | {_line(decision.get('owner') or about.owner or 'nobody named')}; deputy {_line(about.deputy or 'nobody named')} |",
        f"| Review due | {decision.get('review_due') or 'not released'} |",
        f"| Certificate | {_certificate(decision, report)} |", "",
        "## Intended use", "", (f"One task, {about.task!r}: {' and '.join(about.input)} to {about.output}. It answers where its certified threshold allows and leaves "
        "every other request to the teacher."), "", "Not for anything else: " + (f"text of another task is labelled {about.out_of_scope!r} or left to the teacher, " if about.out_of_scope
        else "text of another task is to be left to the teacher, ") + "and an answer outside the task is certified by nobody.", "",
        "## Limits", "", *[f"- {_line(one)}" for one in _limits(decision, report)], "",
        "## Figures", "", "On sealed rows that trained nothing. As served: the student where it may answer, the teacher elsewhere.", "",
        BEGIN, COLUMNS, *figure_rows(dict(facts)), END, "",
    ]  # fmt: skip
    lines += _calibration(chosen) + _fairness(facts["evidence"]) + _others(report) + _teacher(data)
    lines += _changed(changes)
    lines += ["## While it serves", "", about.drift or "No monitoring is configured.", "", "The evidence for every check, with digests, is in `dossier.json`.", ""]
    return "\n".join(lines)


def _front(facts: Mapping[str, Any], about: About, chosen: Mapping[str, Any] | None) -> list[str]:
    trained = next((one for one in facts["evidence"].get("trained", []) if chosen and one["name"] == chosen["name"]), None)
    base = (trained or {}).get("options", {}).get("weights", "")
    tag = {"classes": "text-classification", "fields": "token-classification", "text": "text-generation"}[about.output]
    results = [
        {"type": name, "name": f"{NAMES[name]} (n = {f['n']}, {f['level']:.0%} interval {f['low']:.4f} to {f['high']:.4f})", "value": f["value"]}
        for one, name, f in _figures(chosen) if one["kind"] == "all" and f["value"] is not None
    ]  # fmt: skip
    body: dict[str, Any] = {
        "library_name": "overproof", "pipeline_tag": tag, "license": "other", "license_name": "see-terms-in-dossier", "tags": ["overproof", "distillation", about.task],
        **({"base_model": base.partition(":")[2] or base} if base else {}),
        "model-index": [{"name": about.task, "results": [{"task": {"type": tag}, "dataset": {"name": "sealed rows of the project", "type": "private"}, "metrics": results}]}] if results else [],
    }  # fmt: skip
    return ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in body.items() if value), "---", ""]


def _open(decision: Mapping[str, Any]) -> list[str]:
    """Waived, failing and not-run checks, before anything else."""
    found = [f"- **{one['outcome']}** {one['id']} {_line(one['title'])}: {_line(one['reason'])}" for one in decision["findings"] if one["outcome"] != "pass"]
    return ["Waived, failed or not run:", "", *found] if found else [f"No check was waived, failed or left out ({len(decision['findings'])} findings)."]


def _certificate(decision: Mapping[str, Any], report: Mapping[str, Any] | None) -> str:
    found = decision.get("certificate") or (report or {}).get("certificate")
    if not found:
        return "none"
    kept = sum(one["threshold"] is not None for one in found["slices"])
    return f"{found['supports'] or found['label_kind']}, {kept} of {len(found['slices'])} slices, use {found['use_k']} of these rows, until {found['expires']}"


def _limits(decision: Mapping[str, Any], report: Mapping[str, Any] | None) -> list[str]:
    found = decision.get("certificate") or (report or {}).get("certificate") or {}
    said = list(found.get("assumptions", ()))
    if report and report.get("truth_note"):
        said.append(report["truth_note"])
    if found and found["label_kind"] != "gold":
        said.append("The figures are against the teacher's answers: where the teacher is wrong, agreeing with it is wrong too.")
    return said or ["Nothing is certified."]


def _calibration(chosen: Mapping[str, Any] | None) -> list[str]:
    rows = [
        f"| {_line(one['slice'])} | {gap['value']:.4f} | {gap['low']:.4f}-{gap['high']:.4f} | {gap['n']} |"
        for one in (chosen or {}).get("reliability", []) if (gap := one["ece"])["value"] is not None
    ]  # fmt: skip
    return ["## Calibration", "", "How far stated confidence is from what was seen, on sealed rows.", "", "| Slice | Error | Interval | n |", "|---|---|---|---|", *rows, ""] if rows else []


def _fairness(evidence: Mapping[str, Any]) -> list[str]:
    groups, flips = (evidence.get("groups") or {}).get("attributes", []), (evidence.get("flips") or {}).get("lists", [])
    said = [f"- gaps between groups by {_line(one['attribute'])}: {one['verdict']} (n = {one['n']}, {one['n_gold']} with truth)" for one in groups]
    said += [f"- swapped terms, {_line(one['name'])}: {one['verdict']} ({one['changed']} answers changed in {one['pairs']} pairs)" for one in flips]
    return ["## Bias", "", *(said or ["Not measured: no groups and no swaps are declared."]), ""]


def _others(report: Mapping[str, Any] | None) -> list[str]:
    rows = [
        f"| {_line(one['name'])} | {one['kind']} | {f['value']:.4f} | {f['low']:.4f}-{f['high']:.4f} | {f['n']} | {one['size_bytes'] / 1e6:.1f} MB |"
        for one in (report or {}).get("candidates", []) if one["slices"] and (f := one["slices"][0]["fidelity"])["value"] is not None
    ]  # fmt: skip
    return ["## Candidates that were not chosen, and the chosen one", "", "| Name | Kind | Agreement with the labels | Interval | n | Size |", "|---|---|---|---|---|---|", *rows, ""] if rows else []


def _teacher(data: Mapping[str, Any] | None) -> list[str]:
    if not data:
        return []
    pin, clear = data["pin"], data["clearance"]
    return [
        "## Teacher", "", f"{_line(pin['model'])} of {_line(pin['provider'])}, revision {_line(pin['revision'] or 'not given')}; prompt sha256:{pin['prompt_digest']}.", "",
        (f"Terms: {_line(clear['registry_id'])} ({clear['posture']}), attested by {_line(clear['attested_by'])} on {clear['attested_on']}, "
        f"clearance {clear['id']}; obligations: {', '.join(clear['obligations']) or 'none'}; distribution: {clear['distribution']}."), "",
    ]  # fmt: skip


def _changed(changes: Mapping[str, Any] | None) -> list[str]:
    if changes is None:
        return ["## Since the release before", "", "This is the first release.", ""]
    rows = [f"| {_line(one['slice'])} | {NAMES[one['figure']]} | {_span(one['before'])} | {_span(one['after'])} | {one['word']} |" for one in changes["figures"]]
    checks = [f"- {one['check']}: {one['before'] or 'not asked'} before, {one['after'] or 'not asked'} now" for one in changes["checks"]]
    return [
        f"## Since release {changes['since']}", "", (f"{_line(str(changes['candidate']['before']))} before, {_line(str(changes['candidate']['after']))} now. "
        "Higher or lower only where the intervals don't touch; each release stands on sealed rows of its own."), "",
        "| Slice | Figure | Before | Now | |", "|---|---|---|---|---|", *rows, "", *(checks or ["No check has another outcome."]), "",
    ]  # fmt: skip


def _span(one: Mapping[str, Any] | None) -> str:
    if one is None or one["value"] is None:
        return "-"
    return f"{one['value']:.4f} ({one['low']:.4f}-{one['high']:.4f}, n = {one['n']})"


def data_card(facts: Mapping[str, Any], about: About) -> str:
    """
    The card of the rows that trained and judged the student.

    Args:
        facts: of the dossier.
        about: the rest.

    Returns: Markdown with YAML front matter.
    """
    data = facts["evidence"].get("data")
    n = sum((data or {}).get("rows", {}).values())
    size = next((word for most, word in SIZES if n < most), "n>1M")
    front = {"pretty_name": f"Rows of {about.task}", "license": "other", "license_name": "private", "size_categories": [size], "tags": ["overproof", about.task]}
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---", "", f"# Rows of {about.task}", ""]
    if not data:
        return "\n".join([*lines, "No rows reached the gate.", ""])
    certificate = (facts["evidence"].get("report") or {}).get("certificate") or {}
    first, last = certificate.get("window") or (None, None)
    lines += ["The rows stay with the project: this card has counts and digests, and no text of any of them.", ""]
    lines += ["## Rows", "", "| Split | Rows |", "|---|---|", *(f"| {_line(k)} | {v} |" for k, v in data["rows"].items()), ""]
    lines += [f"From {first or 'an unknown day'} to {last or 'an unknown day'}. Written rather than logged: {data['written']} of {data['rows'].get('train', 0)} training rows.", ""]
    lines += ["## From the log to the splits", "", "| Stage | Rows |", "|---|---|", *(f"| {_line(k)} | {v} |" for k, v in data["funnel"].items()), ""]
    lines += ["## Labels", "", f"Given by {_line(data['pin']['model'])}, {sum(data['models'].values())} answers for {data['spent_usd']:.2f} USD.", ""]
    ceiling = (data.get("ceiling") or {}).get("agreement")
    if ceiling and ceiling["value"] is not None:
        lines += [f"The teacher agrees with itself on {ceiling['value']:.4f} of the rows ({ceiling['low']:.4f}-{ceiling['high']:.4f}, n = {ceiling['n']}).", ""]
    lines += ["| Kept or dropped, and why | Rows |", "|---|---|", *(f"| {_line(k)} | {v} |" for k, v in data["counts"].items()), ""]
    mixes = [f"| {_line(one['view'])} | {one['after']:.4f} | {one['after_low']:.4f}-{one['after_high']:.4f} | {one['n_live']} | {one['n_set']} |" for one in data["distances"]]
    if mixes:
        lines += ["## Against live traffic", "", "| View | Distance | Interval | n live | n here |", "|---|---|---|---|---|", *mixes, ""]
    leaks = ", ".join(f"{name} {count}" for name, count in data["leaks"].items())
    lines += ["## Leaks and privacy", "", f"Rows that straddle two splits: {leaks or 'not checked'}.", "", f"Redacted before anything was stored: {', '.join(about.redacted) or 'nothing'}.", ""]
    lines += ["## Limits", "", *(f"- {_line(one)}" for one in data["notes"] or ["none noted"]), "", "## Digests", ""]
    return "\n".join([*lines, *(f"- {_line(name)}: `{digest}`" for name, digest in facts["evidence"]["digests"].items()), ""])


def summary(facts: Mapping[str, Any], about: About, changes: Mapping[str, Any] | None) -> str:
    """
    One page for whoever decides and doesn't read statistics.

    Args:
        facts: of the dossier.
        about: the rest.
        changes: since the release before.

    Returns: a self-contained document, every value escaped.
    """
    decision, chosen, report = facts["decision"], chosen_of(facts), facts["evidence"].get("report")
    released = facts["verdict"] == "release"
    rows = []
    for name, f in ((name, chosen["slices"][0].get(name)) for name in NAMES) if chosen and chosen["slices"] else ():
        if f and f["value"] is not None:
            rows.append((NAMES[name], f"{f['value']:.1%}", f"{f['low']:.1%} to {f['high']:.1%} from {f['n']:,} requests"))
    saved = ((report or {}).get("outlook") or {}).get("saved")
    if saved and saved["value_usd"] is not None:
        rows.append(("saved a month" if saved["monthly"] else "saved on 1,000 requests", f"{saved['value_usd']:,.2f} USD", f"{saved['low_usd']:,.2f} to {saved['high_usd']:,.2f} USD"))
    weak = [one for one in (chosen or {}).get("slices", []) if one["critical"]]
    opened = [one for one in decision["findings"] if one["outcome"] != "pass"]
    e = html.escape
    figures = "".join(f"<tr><th>{e(a)}</th><td><b>{e(b)}</b></td><td>{e(c)}</td></tr>" for a, b, c in rows)
    slices = "".join(f"<li>{e(one['slice'])}: {e(_span(one['served_fidelity'] or one['fidelity']))}</li>" for one in weak)
    stops = "".join(f"<li><b>{e(one['outcome'])}</b> {e(one['title'])}: {e(one['reason'])} <i>{e(one['next_action'])}</i></li>" for one in opened)
    moved = [one for one in (changes or {}).get("figures", []) if one["word"] != "no clear difference"]
    since = "the first release" if changes is None else f"since {changes['since']}: " + ("; ".join(f"{one['slice']}, {NAMES[one['figure']]}: {one['word']}" for one in moved) or "no figure is clearly other")
    return PAGE.format(
        task=e(about.task), word="Released" if released else "Refused: nothing may serve", color="#176b3a" if released else "#a3231d", headline=e(decision["headline"]),
        figures=figures or "<tr><td>nothing was measured</td></tr>", slices=slices or "<li>none is declared critical</li>",
        stops=stops or "<li>none: every check passed</li>", since=e(since), owner=e(decision.get("owner") or about.owner or "nobody named"), deputy=e(about.deputy or "nobody named"),
        review=e(decision.get("review_due") or "not released"), certificate=e(_certificate(decision, report)), date=e(facts["date"]), release=e(decision.get("id") or "-"),
    )  # fmt: skip


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{task}: {word}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color:#222}}h1{{color:{color};margin-bottom:0}}
table{{border-collapse:collapse;width:100%}}th,td{{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid #ddd;font-weight:inherit}}h2{{font-size:1.1rem;margin:1.2rem 0 .3rem}}</style></head>
<body><h1>{word}</h1><p>{task}, {date}, release {release}. {headline}</p>
<h2>What was measured</h2><table>{figures}</table>
<h2>Critical slices, as served</h2><ul>{slices}</ul>
<h2>Waived, failed or not run</h2><ul>{stops}</ul>
<h2>What changed</h2><p>{since}</p>
<h2>Who answers for it</h2><p>{owner}; deputy {deputy}. Next review: {review}. Certificate: {certificate}.</p>
<p>Each value stands with the interval that the rows allow. The evidence is in dossier.json, the words in MODEL_CARD.md.</p></body></html>
"""


def _line(text: str) -> str:
    """One line of a table, with no markup of its own."""
    kept = html.escape(" ".join(str(text).split()), quote=False)
    return kept.translate({ord(mark): f"\\{mark}" for mark in "|`*_[]"})
