"""What the gateway counts, in Prometheus' form: a fixed list of names, and labels from closed sets only."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final, Literal, get_args

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from overproof.data import REASONS, STAGES
from overproof.runs import ReviewWord
from overproof.store.captured import Drop
from overproof.store.local import engine_version

REVIEW_WORDS: Final[tuple[ReviewWord, ...]] = get_args(ReviewWord)
CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
OTHER: Final = "other"
UNMATCHED: Final = "unmatched"
"""Task of requests that no task was recognised in."""
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SHORT: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
_CONFIDENCE: Final = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    """Of a histogram."""
    mode: Literal["mostrecent", "livesum"] = "mostrecent"
    """How a gauge of several processes becomes one."""


FAMILIES: Final[Mapping[str, Family]] = {
    "overproof_requests_total": Family("counter", ("task", "route", "reason", "stage", "status"), "Requests that were answered."),
    "overproof_request_duration_seconds": Family("histogram", ("task", "route"), "From the request's last byte to the answer's last.", _SECONDS),
    "overproof_gateway_overhead_seconds": Family("histogram", ("task",), "Share of that which was neither teacher nor student.", _SHORT),
    "overproof_student_duration_seconds": Family("histogram", ("task",), "How long the student took.", (*_SHORT, 0.25, 0.5, 1.0)),
    "overproof_confidence": Family("histogram", ("task", "slice"), "The student's calibrated confidence.", _CONFIDENCE),
    "overproof_tokens_total": Family("counter", ("task", "route", "kind"), "Tokens, by kind."),
    "overproof_cost_usd_total": Family("counter", ("task", "route"), "What answers cost."),
    "overproof_avoided_cost_usd_total": Family("counter", ("task",), "What the teacher would have cost for answers of the student."),
    "overproof_captured_total": Family("counter", ("task",), "Rows committed to the traffic log."),
    "overproof_capture_dropped_total": Family("counter", ("task", "slice", "reason"), "Rows that were not kept."),
    "overproof_capture_queue_records": Family("gauge", (), "Rows that wait for the disk.", mode="livesum"),
    "overproof_capture_queue_bytes": Family("gauge", (), "Bytes that wait for the disk.", mode="livesum"),
    "overproof_upstream_errors_total": Family("counter", ("upstream", "class"), "Calls that the upstream failed."),
    "overproof_upstream_retries_total": Family("counter", ("upstream", "class"), "Calls that were made again."),
    "overproof_breaker_open": Family("gauge", ("target",), "1 while calls are held back."),
    "overproof_stage": Family("gauge", ("task", "stage"), "1 for the stage that a task's rollout stands at."),
    "overproof_canary_fraction": Family("gauge", ("task",), "Share of requests that the student may answer."),
    "overproof_release_info": Family("gauge", ("task", "release", "student", "engine"), "1 for the release that is loaded."),
    "overproof_shadow_silent": Family("gauge", ("task",), "1 while the shadow student is offered requests and answers none."),
    "overproof_guard_e_value": Family("gauge", ("task", "slice", "guard"), "Evidence against the student; a rollback at its limit."),
    "overproof_rollbacks_total": Family("counter", ("task", "guard"), "Rollbacks, by the guard that fired."),
    "overproof_live_checked_total": Family("counter", ("task", "slice"), "Answers of the student that were compared with the teacher's."),
    "overproof_fidelity_ratio": Family("gauge", ("task", "slice"), "Share of these that agreed."),
    "overproof_drift_score": Family("gauge", ("task", "slice", "detector"), "How far the traffic has moved."),
    "overproof_drift_threshold": Family("gauge", ("task", "slice", "detector"), "Where that becomes an alarm."),
    "overproof_review_state": Family("gauge", ("task", "state"), "1 for the state of the owner's review."),
    "overproof_review_due_timestamp_seconds": Family("gauge", ("task",), "When the next review is due, Unix time."),
    "overproof_budget_usd": Family("gauge", ("name", "kind"), "Money: cap, held, spent."),
    "overproof_labels_total": Family("counter", ("outcome",), "Answers asked of the teacher for labels."),
    "overproof_store_commit_seconds": Family("histogram", ("db",), "How long commits took.", (*_SHORT, 0.5, 1.0, 5.0)),
    "overproof_store_errors_total": Family("counter", ("db", "kind"), "Writes that the disk refused."),
    "overproof_store_read_only": Family("gauge", ("db",), "1 while nothing can be written."),
    "overproof_event_loop_lag_seconds": Family("histogram", (), "How late the event loop runs what is due.", (*_SHORT, 0.5, 1.0)),
    "overproof_build_info": Family("gauge", ("version", "python", "sqlite"), "1, with what runs."),
}
_CLOSED: Final[Mapping[str, frozenset[str]]] = {
    "route": frozenset({"student", "teacher"}), "reason": frozenset(REASONS), "stage": frozenset(STAGES),
    "kind": frozenset({"input", "output", "cached", "reasoning", "cap", "held", "spent", "full", "io", "busy"}),
    "target": frozenset({"student", "upstream"}), "db": frozenset({"traffic", "project"}),
    "outcome": frozenset({"ok", "bad", "transient", "lost", "dropped"}),
    "class": frozenset({"connect", "timeout", "cut", "protocol", "refused", "4xx", "5xx", "429"}),
    "status": frozenset(str(code) for code in (0, *range(200, 208), *range(400, 432), 451, 499, *range(500, 512), 529)),
}  # fmt: skip
_DROPS: Final = frozenset({*get_args(Drop), OTHER})
_FREE_AT_MOST: Final = 64  # values of a label that come from the code or the project and not from a set above


class Metrics:
    """
    The figures of one gateway; an observation looks its child up in a dictionary and adds to it.

    Args:
        tasks: names of the tasks; any other becomes "other", none "unmatched".
        slices: names of certification slices by task; any other becomes "other".
    """

    def __init__(self, tasks: Sequence[str], *, slices: Mapping[str, Sequence[str]] | None = None) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, which nobody asked for
        self._registry = CollectorRegistry()
        self._families = {name: _made(name, family, self._registry) for name, family in FAMILIES.items()}
        self._children: dict[tuple[str, ...], Any] = {}
        self._tasks = frozenset({*tasks, UNMATCHED})
        self._slices = frozenset(s for names in (slices or {}).values() for s in names)
        self._loaded: dict[str, tuple[str, ...]] = {}
        self._free: dict[tuple[str, str], set[str]] = {}
        self.set("overproof_build_info", 1, version("overproof"), platform.python_version(), engine_version())

    def add(self, name: str, amount: float, *labels: str) -> None:
        """
        Add to a counter.

        Args:
            name: of the counter.
            amount: how much, not below 0.
            labels: in the order of `FAMILIES`.
        """
        self.child(name, *labels).inc(amount)

    def set(self, name: str, value: float, *labels: str) -> None:
        """
        Set a gauge.

        Args:
            name: of the gauge.
            value: what it shows.
            labels: as in `add`.
        """
        self.child(name, *labels).set(value)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """
        Add to a histogram.

        Args:
            name: of the histogram.
            value: what was seen.
            labels: as in `add`.
        """
        self.child(name, *labels).observe(value)

    def child(self, name: str, *labels: str) -> Any:
        """
        The counter, gauge or histogram behind a name and its labels; callers on a hot path keep it.

        Args:
            name: of the metric.
            labels: as in `add`; what is not in a label's closed set counts as "other".

        Returns: prometheus_client's object.
        """
        found = self._children.get((name, *labels))
        if found is None:
            family = FAMILIES[name]
            values = [self._closed(name, label, value) for label, value in zip(family.labels, labels, strict=True)]
            found = self._families[name].labels(*values) if values else self._families[name]
            if tuple(values) == labels:  # what is not in a set may be anything, and must not fill the memory
                self._children[(name, *labels)] = found
        return found

    def stage(self, task: str, stage: str, fraction: float) -> None:
        """
        Say where a task's rollout stands.

        Args:
            task: its name.
            stage: of `STAGES`.
            fraction: share of requests that the student may answer.
        """
        for one in STAGES:
            self.set("overproof_stage", float(one == stage), task, one)
        self.set("overproof_canary_fraction", fraction, task)

    def review(self, task: str, word: str, due: str) -> None:
        """
        Say where the owner's review stands.

        Args:
            task: its name.
            word: of `runs.ReviewWord`; empty where nothing serves.
            due: ISO date of the next one; empty likewise.
        """
        for one in REVIEW_WORDS:
            self.set("overproof_review_state", float(one == word), task, one)
        self.set("overproof_review_due_timestamp_seconds", datetime.fromisoformat(f"{due}T00:00:00+00:00").timestamp() if due else 0.0, task)

    def release(self, task: str, release: str, *, student: str, engine: str) -> None:
        """
        Say which release is loaded; an earlier one of the task is no longer shown.

        Args:
            task: its name.
            release: id; empty where none is loaded.
            student: part that answers.
            engine: runtime that it runs in.
        """
        family = self._families["overproof_release_info"]
        before = self._loaded.pop(task, None)
        if before is not None:
            family.labels(*before).set(0)  # where other processes read, removing is not seen
            family.remove(*before)
        if release:
            self._loaded[task] = (task, release, student, engine)
            family.labels(*self._loaded[task]).set(1)

    def render(self) -> bytes:
        """All figures, of every process that shares `PROMETHEUS_MULTIPROC_DIR` where that is set."""
        if not _several():
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)

    def _closed(self, name: str, label: str, value: str) -> str:
        if label == "task":
            return value if value in self._tasks else OTHER if value else UNMATCHED
        if label == "slice":
            return value if value in self._slices else OTHER
        if name == "overproof_capture_dropped_total" and label == "reason":
            return value if value in _DROPS else OTHER
        if label in _CLOSED:
            return value if value in _CLOSED[label] else OTHER
        known = self._free.setdefault((name, label), set())
        if value not in known and len(known) >= _FREE_AT_MOST:
            return OTHER
        known.add(value)
        return value


def _made(name: str, family: Family, registry: CollectorRegistry) -> Any:
    plain = name.removesuffix("_total")
    if family.kind == "counter":
        return Counter(plain, family.help, family.labels, registry=registry)
    if family.kind == "histogram":
        return Histogram(name, family.help, family.labels, registry=registry, buckets=family.buckets)
    return Gauge(name, family.help, family.labels, registry=registry, multiprocess_mode=family.mode)


def _several() -> bool:
    return bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
