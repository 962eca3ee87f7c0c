"""The gate's verdict in one sentence for a person in a hurry, and a figure in words."""

from __future__ import annotations

from overproof.evidence import EvalReport, Figure, Finding
from overproof.steps.collect import Evidence


def said(figure: Figure) -> str:
    """
    A figure in words: value, interval, n.

    Args:
        figure: any figure.

    Returns: for example "94.2% (92.1% to 95.8%, n = 812)".
    """
    if figure.value is None:
        return "no rows (n = 0)"
    return f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%}, n = {figure.n:,})"


def refused(evidence: Evidence, findings: tuple[Finding, ...]) -> str:
    """
    Why nothing ships.

    Args:
        evidence: what the gate read.
        findings: of all checks, the ones that stop a release first.

    Returns: one sentence.
    """
    stops = [f for f in findings if f.outcome not in ("pass", "waived")]
    failed = len({f.id for f in stops if f.outcome == "fail"})
    open_ = len({f.id for f in stops} - {f.id for f in stops if f.outcome == "fail"})
    report = evidence.report
    if report is not None and report.cheaper is not None:
        role = next(c.role for c in report.candidates if c.name == report.cheaper)
        what = f"{report.cheaper} ({role})" if role else report.cheaper
        return f"Don't distil: {what} clears every bar and costs no more than {report.chosen} as served."
    counts = " and ".join(
        text for text in (f"{failed} of {len({f.id for f in findings})} checks fail" if failed else "",
                          f"{open_} can't be decided yet" if open_ else "") if text
    )
    weak = len([f for f in stops if f.id == "G05" and f.slice is not None and f.outcome == "fail"])
    if weak and evidence.data is not None:
        labels = len(evidence.data.labels)
        likely = len(report.weak_labels) - weak if report is not None else 0
        more = f", probably on {likely} more" if likely > 0 else ""
        return (
            f"Not released: {counts}; on {weak} of {labels} labels the teacher itself is wrong more than half the "
            f"time{more}."
        )
    return f"Not released: {counts}; first of all: {stops[0].reason if stops else 'there is no report'}."


def shipped(report: EvalReport) -> str:
    """
    What the release promises.

    Args:
        report: with a certificate that has at least one threshold.

    Returns: one sentence.
    """
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    certificate = report.certificate
    kept = chosen.slices[0].kept
    share = said(kept) if kept is not None else "an unknown share"
    alpha = max(s.alpha for s in certificate.slices if s.threshold is not None)
    gold = certificate.label_kind == "gold"
    verb = "is right" if gold else "agrees with the teacher"
    sure = f"with {1 - certificate.delta_spent:.1%} confidence"
    if certificate.supports == "G2":
        wrong = "are answered by it and wrong" if gold else "are answered by it otherwise than the teacher would"
        return f"{report.chosen} answers {share} of the requests itself; {sure} at most {alpha:.1%} of all requests {wrong}."
    return (
        f"{report.chosen} answers {share} of the requests itself; {sure} it {verb} on at least {1 - alpha:.0%} of what "
        f"it answers, and the teacher answers the rest."
    )


def under_waivers(findings: tuple[Finding, ...]) -> str:
    """
    What a release says first: which checks people took upon themselves.

    Args:
        findings: of all checks.

    Returns: one sentence and a blank; empty without waivers.
    """
    found = {f.id: f.waiver for f in findings if f.outcome == "waived" and f.waiver is not None}
    if not found:
        return ""
    each = "; ".join(f"{check} until {w.until} by {w.by} and {w.second}" for check, w in sorted(found.items()))
    return f"Under {len(found)} waiver{'s' if len(found) > 1 else ''} ({each}): "


def watched_line(findings: tuple[Finding, ...]) -> str:
    """
    What the probes saw that nobody asked for, for the first screen.

    Args:
        findings: of a verdict's `watched`.

    Returns: one sentence; empty where all probes are asked for.
    """
    if not findings:
        return ""
    if all(f.id == "P00" for f in findings):
        return findings[0].reason
    counts = [(sum(f.outcome == outcome for f in findings), words) for outcome, words in (("fail", "miss a bar"), ("not-run", "can’t be told"), ("pass", "hold"))]
    said = ", ".join(f"{n} {words}" for n, words in counts if n)
    worst = next((f.reason for f in findings if f.outcome == "fail"), "")
    return f"robustness, watched and refusing nothing: of {len(findings)} glances {said}" + (f"; first of all: {worst}" if worst else "")
