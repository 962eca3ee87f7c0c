"""A release's papers beside the dossier: cards for people and hubs, one page for a manager, and what changed."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overproof.steps.bom import bill_of_materials, provenance
from overproof.steps.since import NAMES, Former, change_lines, changes_from, chosen_of, figures_of
from overproof.steps.summary import summary
from overproof.steps.waived import opened, waived_rows
from overproof.verify import BEGIN, END, figure_rows

MODEL_CARD, DATA_CARD, SUMMARY, CHANGES, BOM, PROVENANCE = (
    "MODEL_CARD.md", "DATA_CARD.md", "summary.html", "changes.json", "bom.cdx.json", "provenance.intoto.jsonl",
)  # fmt: skip
COLUMNS = "| Slice | Figure | Value | Interval | Level | Method | n | Bar | Verdict |\n|---|---|---|---|---|---|---|---|---|"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


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
    page = summary(facts, changes, task=about.task, owner=about.owner, deputy=about.deputy)
    (folder / SUMMARY).write_text(page, encoding="utf-8")
    bom = bill_of_materials(facts, task=about.task, owner=about.owner, software=about.software, bundle=bundle)
    (folder / BOM).write_text(json.dumps(bom, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if bundle is not None:
        made = provenance(facts, task=about.task, digests=about.digests, bundle=bundle)
        (folder / PROVENANCE).write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


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
        for one, name, f in figures_of(chosen) if one["kind"] == "all" and f["value"] is not None
    ]  # fmt: skip
    body: dict[str, Any] = {
        "library_name": "overproof", "pipeline_tag": tag, "license": "other", "license_name": "see-terms-in-dossier", "tags": ["overproof", "distillation", about.task],
        **({"base_model": base.partition(":")[2] or base} if base else {}),
        "model-index": [{"name": about.task, "results": [{"task": {"type": tag}, "dataset": {"name": "sealed rows of the project", "type": "private"}, "metrics": results}]}] if results else [],
    }  # fmt: skip
    return ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in body.items() if value), "---", ""]


def _open(decision: Mapping[str, Any]) -> list[str]:
    """Waivers in a section of their own, then failing and not-run checks, before anything else."""
    rows = [
        f"| {one['check']} {_line(one['title'])} | {_line(one['by'])} | {_line(one['second'])} | {one['until']} | {_line(one['reason'])} | {_line(one['control'])} | {_line(one['said'])} |"
        for one in waived_rows(decision)
    ]  # fmt: skip
    table = "| Check | By | Second | Until | Why it ships all the same | Done instead | Without the waiver |\n|---|---|---|---|---|---|---|"
    found = [f"- **{one['outcome']}** {one['id']} {_line(one['title'])}: {_line(one['reason'])}" for one in opened(decision)]
    said = ["## Waived", "", "Two people took these findings upon themselves; after the last day the release is overdue, and 30 days later the teacher answers.", "", table, *rows, ""] if rows else []
    said += ["Failed or not run:", "", *found] if found else []
    return said or [f"No check was waived, failed or left out ({len(decision['findings'])} findings)."]


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
    right = "with their true labels" if changes["shared"]["right_is"] == "gold" else "against the teacher's answers"
    paired = [
        f"| {_line(one['slice'])} | {one['n']} | {one['before']:.4f} | {one['after']:.4f} | {one['after'] - one['before']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f}) | {one['word']} |"
        for one in changes["shared"]["slices"]
    ]  # fmt: skip
    head = "| Slice | n | Before | Now | Difference, 95% paired interval | |\n|---|---|---|---|---|---|"
    return [
        f"## Since release {changes['since']}", "", *[f"- {_line(one)}" for one in change_lines(changes) or ["labels, candidates, thresholds, checks and waivers are the same"]], "",
        *([f"Both students alone on the sealed rows that both releases have, {right}:", "", head, *paired, ""] if paired else ["The two releases share no sealed rows that both students were asked.", ""]),
        "Each release on its own sealed rows; higher or lower only where the intervals don't touch:", "",
        "| Slice | Figure | Before | Now | |", "|---|---|---|---|---|", *rows, "",
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


def _line(text: str) -> str:
    """One line of a table, with no markup of its own."""
    kept = html.escape(" ".join(str(text).split()), quote=False)
    return kept.translate({ord(mark): f"\\{mark}" for mark in "|`*_[]"})
