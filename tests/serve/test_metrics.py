"""The figures: these names and no others, labels that can't grow, sums that are right."""

import json
import os
import re
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from overproof.data import REASONS, STAGES
from overproof.serve.metrics import FAMILIES, Metrics

PROMISED = set("""overproof_requests_total overproof_request_duration_seconds overproof_gateway_overhead_seconds
overproof_student_duration_seconds overproof_confidence overproof_tokens_total overproof_cost_usd_total
overproof_avoided_cost_usd_total overproof_captured_total overproof_capture_dropped_total overproof_capture_queue_records
overproof_capture_queue_bytes overproof_upstream_errors_total overproof_upstream_retries_total overproof_breaker_open
overproof_shadow_silent overproof_stage overproof_canary_fraction overproof_release_info overproof_guard_e_value overproof_rollbacks_total
overproof_live_checked_total overproof_fidelity_ratio overproof_drift_score overproof_drift_threshold overproof_review_state
overproof_review_due_timestamp_seconds overproof_budget_usd overproof_labels_total overproof_store_commit_seconds
overproof_store_errors_total overproof_store_read_only overproof_event_loop_lag_seconds overproof_build_info""".split())  # noqa: SIM905 - a list to read


def samples(text):
    """{(name, labels): value} as a scraper reads it."""
    families = text_string_to_metric_families(text if isinstance(text, str) else text.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def series(text, name):
    return {labels: value for (found, labels), value in samples(text).items() if found == name}


def observe_all(metrics):
    for name, family in FAMILIES.items():
        {"counter": metrics.add, "gauge": metrics.set, "histogram": metrics.observe}[family.kind](name, 1.0, *("x" for _ in family.labels))


def test_exactly_the_promised_names_are_exported():
    """Before and after each was used; no second series for when a counter was made."""
    metrics = Metrics(["sort"])
    assert set(FAMILIES) == set(PROMISED)
    for _ in range(2):
        found = set(re.findall(rb"^# TYPE (\S+)", metrics.render(), re.MULTILINE))
        assert found == {name.encode() for name in PROMISED}
        observe_all(metrics)
    assert b"_created" not in metrics.render()


def test_each_metric_has_its_form():
    """Base units, _total on counters alone, buckets that rise."""
    for name, family in FAMILIES.items():
        assert name.endswith("_total") == (family.kind == "counter")
        assert list(family.buckets) == sorted(family.buckets)
        assert bool(family.buckets) == (family.kind == "histogram")
        assert family.help.endswith(".")
        assert not {"user", "key", "text", "model", "id"} & set(family.labels)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_no_label_can_grow_without_end(name):
    """A thousand values that nobody planned for become few series, and few remembered children."""
    metrics = Metrics(["sort"])
    family = FAMILIES[name]
    act = {"counter": metrics.add, "gauge": metrics.set, "histogram": metrics.observe}[family.kind]
    if name in ("overproof_release_info", "overproof_build_info"):
        return  # set by what is loaded, one at a time
    for n in range(1000):
        act(name, 1.0, *(f"v{n}" for _ in family.labels))
    assert len(metrics._children) <= 70
    count = f"{name}_count" if family.kind == "histogram" else name
    assert len(series(metrics.render(), count)) <= 66


def test_known_values_keep_their_names_and_unknown_ones_are_other():
    """Tasks and slices of the project, reasons and stages of the package."""
    metrics = Metrics(["sort"], slices={"sort": ["tier=gold"]})
    for reason in REASONS:
        metrics.add("overproof_requests_total", 1, "sort", "teacher", reason, "shadow", "200")
    metrics.add("overproof_requests_total", 2, "", "teacher", "unmatched", "teacher-only", "999")
    metrics.add("overproof_requests_total", 3, "their words", "teacher", "stage", "full", "200")
    metrics.add("overproof_live_checked_total", 1, "sort", "tier=gold")
    metrics.add("overproof_live_checked_total", 1, "sort", "tier=anything")
    found = series(metrics.render(), "overproof_requests_total")
    assert {dict(labels)["reason"] for labels in found} == set(REASONS)
    assert {dict(labels)["task"] for labels in found} == {"sort", "unmatched", "other"}
    assert {dict(labels)["status"] for labels in found} == {"200", "other"}
    assert sum(found.values()) == len(REASONS) + 5
    assert {dict(labels)["slice"] for labels in series(metrics.render(), "overproof_live_checked_total")} == {"tier=gold", "other"}


def test_a_child_that_is_kept_counts_on_the_same_series():
    """What a hot path holds is the series itself."""
    metrics = Metrics(["sort"])
    child = metrics.child("overproof_captured_total", "sort")
    for _ in range(5):
        child.inc()
    metrics.add("overproof_captured_total", 2, "sort")
    assert metrics.child("overproof_captured_total", "sort") is child
    assert list(series(metrics.render(), "overproof_captured_total").values()) == [7]


def test_stage_and_release_are_one_at_a_time():
    """A scraper sees where a task stands and what is loaded, and nothing that was before."""
    metrics = Metrics(["sort"])
    for stage, fraction in (("shadow", 0.0), ("canary", 0.05)):
        metrics.stage("sort", stage, fraction)
    stages = series(metrics.render(), "overproof_stage")
    assert {dict(labels)["stage"]: value for labels, value in stages.items()} == {s: float(s == "canary") for s in STAGES}
    assert list(series(metrics.render(), "overproof_canary_fraction").values()) == [0.05]
    metrics.release("sort", "r1", student="linear.v1", engine="numpy")
    metrics.release("sort", "r2", student="encoder.v1", engine="onnx")
    assert [dict(labels)["release"] for labels in series(metrics.render(), "overproof_release_info")] == ["r2"]
    metrics.release("sort", "", student="", engine="")
    assert series(metrics.render(), "overproof_release_info") == {}


CODE = """
import json, sys
from overproof.serve.metrics import Metrics
m = Metrics(["sort"])
m.add("overproof_captured_total", 3, "sort")
m.set("overproof_capture_queue_records", 4)
m.observe("overproof_confidence", 0.9, "sort", "x")
m.stage("sort", "canary", 0.1)
print(json.dumps(m.render().decode()))
sys.stdin.read()
"""


def test_several_processes_show_one_sum(tmp_path):
    """With PROMETHEUS_MULTIPROC_DIR each process renders what all of them counted; queues of living ones are added."""
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    first = subprocess.Popen([sys.executable, "-c", CODE], **pipes)
    assert first.stdout.readline()
    second = subprocess.Popen([sys.executable, "-c", CODE], **pipes)
    text = json.loads(second.stdout.readline())
    for process in (first, second):
        process.communicate()
        assert process.returncode == 0
    assert list(series(text, "overproof_captured_total").values()) == [6]
    assert list(series(text, "overproof_capture_queue_records").values()) == [8]
    assert list(series(text, "overproof_confidence_count").values()) == [2]
    assert list(series(text, "overproof_canary_fraction").values()) == [0.1]
