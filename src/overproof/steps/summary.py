"""One page for whoever decides and doesn't read statistics."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from overproof.steps.since import change_lines, chosen_of
from overproof.steps.waived import opened, waived_rows

SAID = {
    "kept": "of all requests are answered by the student, the rest by the teacher",
    "served_accuracy": "of all answers are right, as served: student and teacher together",
    "served_fidelity": "of all answers are the teacher's, as served: student and teacher together",
    "accuracy": "would be right if the student answered everything",
    "fidelity": "would be as the teacher's if the student answered everything",
}
MOVED = {
    "kept": "share that the student answers", "served_accuracy": "right, as served", "served_fidelity": "as the teacher, as served",
    "accuracy": "right, student alone", "fidelity": "as the teacher, student alone",
}  # fmt: skip
OFTEN = {"higher": "right more often", "lower": "right less often", "no clear difference": "neither clearly better nor worse"}
WORDS = {"fail": "fails", "not-run": "not proven"}


def summary(
    facts: Mapping[str, Any], changes: Mapping[str, Any] | None, *, task: str, owner: str, deputy: str
) -> str:
    """
    The page.

    Args:
        facts: of the dossier.
        changes: since the release before; None for the first one.
        task: its name.
        owner: as the project names them, for a refusal.
        deputy: the same.

    Returns: a self-contained document, every value escaped.
    """
    decision, e = facts["decision"], html.escape
    released = facts["verdict"] == "release"
    waivers = "".join(
        f"<li><b>{e(one['title'] if one['check'] in one['title'] else one['check'] + ' ' + one['title'])}</b>, until {e(one['until'])}, by {e(one['by'])} and {e(one['second'])}. "
        f"Why: {e(one['reason'])} Instead: {e(one['control'])} <i>Without the waiver {e(one['said'])}</i></li>"
        for one in waived_rows(decision)
    )
    stops = "".join(
        f"<li><b>{WORDS[one['outcome']]}:</b> {e(one['title'])}{e(': ' + one['slice'] if one['slice'] else '')}. {e(one['reason'])} <i>Next: {e(one['next_action'])}</i></li>"
        for one in opened(decision)
    )  # fmt: skip
    return PAGE.format(
        task=e(task), word="Released" if released else "Refused: nothing may serve", color="#176b3a" if released else "#a3231d", headline=e(decision["headline"]),
        waived=f'<section class="waived"><h2>Ships under waivers</h2><ul>{waivers}</ul></section>' if waivers else "",
        stops=f"<h2>What stands in the way</h2><ul>{stops}</ul>" if stops else "",
        passed=_passed(decision), figures="".join(_figures(facts)) or "<tr><td>nothing was measured</td></tr>", slices=_slices(facts), changed=_changed(changes),
        owner=e(decision.get("owner") or owner or "nobody named"), deputy=e(deputy or "nobody named"), certificate=_until(facts),
        review=e(decision.get("review_due") or "not released"), date=e(facts["date"]), release=f", release {e(decision['id'])}" if decision.get("id") else "",
    )  # fmt: skip


def _passed(decision: Mapping[str, Any]) -> str:
    n = len({one["id"] for one in decision["findings"]})
    good = len({one["id"] for one in decision["findings"]} - {one["id"] for one in decision["findings"] if one["outcome"] != "pass"})
    return f"{good} of {n} checks passed."


def _until(facts: Mapping[str, Any]) -> str:
    found = facts["decision"].get("certificate") or (facts["evidence"].get("report") or {}).get("certificate")
    if not found or facts["verdict"] != "release":
        return "Nothing is certified to serve."
    kept = sum(one["threshold"] is not None for one in found["slices"])
    return f"The certificate lets the student answer in {kept} of {len(found['slices'])} parts of the traffic, until {html.escape(found['expires'])}."


def _percent(f: Mapping[str, Any]) -> str:
    return f"{f['value']:.1%}"


def _between(f: Mapping[str, Any]) -> str:
    return f"between {f['low']:.1%} and {f['high']:.1%}, measured on {f['n']:,} requests"


def _row(head: str, words: str, small: str) -> str:
    return f'<tr><td class="big">{html.escape(head)}</td><td>{html.escape(words)}<br><span>{html.escape(small)}</span></td></tr>'


def _figures(facts: Mapping[str, Any]) -> Iterator[str]:
    chosen, report = chosen_of(facts), facts["evidence"].get("report")
    whole = chosen["slices"][0] if chosen and chosen["slices"] else {}
    known = [name for name in SAID if whole.get(name) and whole[name]["value"] is not None]
    for name in known:
        if f"served_{name}" not in known:  # as served is what people will see
            yield _row(_percent(whole[name]), SAID[name], _between(whole[name]))
    saved = ((report or {}).get("outlook") or {}).get("saved")
    if saved and saved["value_usd"] is not None:
        words = "saved a month" if saved["monthly"] else "saved on 1,000 requests"
        yield _row(f"{saved['value_usd']:,.2f} USD", words, f"{saved['low_usd']:,.2f} to {saved['high_usd']:,.2f} USD")


def _slices(facts: Mapping[str, Any]) -> str:
    """Critical slices, each with its lowest figure that has a bar, as served where that is known."""
    weak = [one for one in (chosen_of(facts) or {}).get("slices", []) if one["critical"]]
    if not weak:
        return "<p>None is declared critical.</p>"
    rows = []
    for one in weak:
        f = next((one[name] for name in ("served_accuracy", "served_fidelity", "accuracy", "fidelity") if one.get(name) and one[name]["value"] is not None), None)
        name = next((name for name in SAID if f is not None and one.get(name) is f), "")
        what = f"requests least like the training rows ({one['slice']})" if one["kind"] == "novelty" else str(one["slice"])
        rows.append(_row(_percent(f), f"{what}: {MOVED[name]}", _between(f)) if f is not None else _row("–", what, "no rows (n = 0)"))
    return f"<table>{''.join(rows)}</table>"


def _changed(changes: Mapping[str, Any] | None) -> str:
    if changes is None:
        return "<p>This is the first release.</p>"
    said = [
        f"on the {one['n']:,} requests that both releases were judged by{_where(one['slice'])}, the new student alone is {OFTEN[one['word']]}: "
        f"on {one['before']:.1%} before, {one['after']:.1%} now, {100 * one['low']:+.1f} to {100 * one['high']:+.1f} points"
        for one in changes["shared"]["slices"] if one["slice"] == "all" or one["word"] != "no clear difference"
    ]  # fmt: skip
    said += [f"{one['slice']}, {MOVED[one['figure']]}: {one['word']}" for one in changes["figures"] if one["word"] not in ("no clear difference", "new", "gone")]
    said = [*(said or ["no figure is clearly other"]), *change_lines(changes)]
    return f"<p>Since release {html.escape(changes['since'])}:</p><ul>{''.join(f'<li>{html.escape(one)}</li>' for one in said)}</ul>"


def _where(name: str) -> str:
    return "" if name == "all" else f" in {name}"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"><title>{task}: {word}</title>
<style>body{{font:16px/1.45 system-ui,sans-serif;max-width:46rem;margin:1.5rem auto;padding:0 1rem;color:#222;background:#fff;overflow-wrap:anywhere}}
h1{{color:{color};margin:0;font-size:1.7rem}}h2{{font-size:1.05rem;margin:1rem 0 .2rem}}p,ul{{margin:.3rem 0}}ul{{padding-left:1.2rem}}li{{margin:.2rem 0}}
.lead{{font-size:1.08rem}}.waived{{border:1px solid #c9a227;border-left:.3rem solid #c9a227;border-radius:.3rem;padding:.4rem .8rem;margin:.7rem 0}}.waived h2{{margin-top:0}}
table{{border-collapse:collapse;width:100%}}td{{padding:.25rem .6rem .25rem 0;border-bottom:1px solid #ddd;vertical-align:top}}td.big{{font-weight:700;font-size:1.15rem;white-space:nowrap;width:7.5rem}}
td span,i,.note{{color:#555;font-size:.9rem}}
@page{{size:A4;margin:14mm}}@media print{{body{{margin:0;max-width:none;padding:0;font-size:10.5pt}}h2{{break-after:avoid}}tr,li,.waived{{break-inside:avoid}}}}</style></head>
<body><h1>{word}</h1><p class="note">{task}, {date}{release}</p><p class="lead">{headline}</p>
{waived}{stops}<h2>What was measured</h2><table>{figures}</table>
<h2>Critical slices</h2>{slices}
<h2>What changed</h2>{changed}
<h2>Who answers for it</h2><p>{owner}; deputy: {deputy}. Next review: {review}. {certificate}</p>
<p class="note">{passed} Every figure stands with the range that its rows allow; the evidence is in dossier.json, the words in MODEL_CARD.md.</p></body></html>
"""
