"""The fault teacher itself: what it plants, what it counts, and that it runs by itself."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from overproof.errors import DataError
from overproof.importers import ColumnMapping
from overproof.importers.table import Csv, JsonLines
from overproof.students.baselines import Majority
from overproof.testing import (
    BILLED,
    FAULTS,
    MODEL,
    UNBILLED,
    Faults,
    FaultTeacher,
    hashed_labels,
    importer_conformance,
    student_conformance,
)


def post(url: str, text: str = "hi", timeout: float = 5.0) -> dict:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}]}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        return json.load(response)


def status(url: str, text: str = "hi") -> int:
    try:
        post(url, text)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    return 200


def fates(seed: int, order: list[str]) -> dict[str, int]:
    with FaultTeacher(lambda text: text, faults=Faults(rates={"500": 0.3, "429": 0.3}, seed=seed)) as server:
        return {text: status(server.base_url, text) for text in order}


def test_the_seed_settles_each_requests_fate_whatever_the_order() -> None:
    """The same request meets the same fault under the same seed, so that a failing run can be replayed."""
    names = [f"m{i}" for i in range(60)]
    assert fates(1, names) == fates(1, names[::-1])
    assert fates(1, names) != fates(2, names)
    assert set(fates(1, names).values()) == {500, 429, 200}


def test_it_counts_what_arrives_and_what_a_provider_would_bill() -> None:
    """Refused requests cost nothing, answers do, good or bad."""
    with FaultTeacher(lambda _: "a", faults=Faults(script=("ok", "429", "length", "500", "refusal"))) as server:
        assert [status(server.base_url) for _ in range(5)] == [200, 429, 200, 500, 200]
        stats = server.stats
        with urllib.request.urlopen(server.base_url.removesuffix("/v1") + "/stats", timeout=5) as response:
            assert json.load(response)["billed"] == 3
    assert (stats.wire, stats.billed) == (5, 3)
    assert stats.fates == {"ok": 1, "429": 1, "length": 1, "500": 1, "refusal": 1}


def test_over_its_rate_it_answers_429_with_retry_after() -> None:
    """The rate limit is a real one."""
    with FaultTeacher(lambda _: "a", faults=Faults(requests_per_s=3, retry_after_s=2)) as server:
        assert [status(server.base_url) for _ in range(6)] == [200, 200, 200, 429, 429, 429]
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server.base_url)
    with caught.value as error:
        assert error.headers["Retry-After"] == "2"


def test_unknown_faults_and_impossible_rates_are_refused() -> None:
    """A misspelt fault would test nothing."""
    for faults in (Faults(rates={"5OO": 0.1}), Faults(rates={"500": 0.7, "cut": 0.7}), Faults(script=("hangs",))):
        with pytest.raises(DataError):
            FaultTeacher(lambda _: "a", faults=faults)
    assert len(FAULTS) == len(set(BILLED) | set(UNBILLED)) == len(BILLED) + len(UNBILLED)


def test_hashed_labels_give_each_text_its_own_label() -> None:
    """The same text gets the same label, and all labels occur."""
    answer = hashed_labels(["a", "b", "c"])
    assert answer("x") == answer("x")
    assert {answer(str(i)) for i in range(50)} == {"a", "b", "c"}


def test_it_stops_when_its_context_ends() -> None:
    """The port is free again, hanging callers or not."""
    with FaultTeacher(lambda _: "a", faults=Faults(script=("hang",))) as server:
        with pytest.raises(TimeoutError):
            post(server.base_url, timeout=0.2)
        port = server.port
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_it_runs_by_itself_and_says_where() -> None:
    """`python -m overproof.testing` prints its port as JSON, serves, and ends cleanly on SIGTERM."""
    command = [sys.executable, "-m", "overproof.testing", "--labels", "a,b", "--rate", "length=1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said = json.loads(process.stdout.readline())
        assert post(said["base_url"])["choices"][0]["finish_reason"] == "length"
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        assert process.wait(10) == 0


def test_the_student_suite_passes_a_sound_student(tmp_path: Path) -> None:
    """The simplest baseline keeps every promise."""
    student_conformance(lambda labels: Majority(labels=labels, seed=0), workdir=tmp_path)


@pytest.mark.parametrize(
    ("spoil", "promise"),
    [
        (lambda found: found.astype(float), "float32"),
        (lambda found: found[:, :2], "shape"),
        (lambda found: found * np.nan, "finite"),
        (lambda found: found + np.random.default_rng().normal(size=found.shape).astype("f"), "same rows and seed"),
        (lambda found: found + np.arange(len(found), dtype="f")[:, None], "order of the requests"),
        (lambda found: found + np.float32(len(found)), "neighbours"),
        (lambda found: found + np.float32([0, 0, 99, 0]), "without training rows"),
    ],
)
def test_the_student_suite_names_the_promise_that_is_broken(tmp_path: Path, spoil, promise: str) -> None:
    """Each planted defect in the answers of a sound student is found, by name."""

    class Broken(Majority):
        def logits(self, requests):
            return spoil(super().logits(requests))

    with pytest.raises(AssertionError, match=promise):
        student_conformance(lambda labels: Broken(labels=labels, seed=0), workdir=tmp_path)


def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{i}", "text": f"message {i}", "tier": "plus"}) + "\n" for i in range(9)))
    (tmp_path / "damaged").mkdir()
    return path


def test_the_importer_suite_passes_a_sound_importer_and_no_other(tmp_path: Path) -> None:
    """A reader of JSON lines keeps its promises on its own file; one that crashes on damage is named."""
    mapping, sample, workdir = ColumnMapping(fields=("text",)), log(tmp_path), tmp_path / "damaged"
    importer_conformance(JsonLines, sample=sample, mapping=mapping, workdir=workdir)

    class Fragile(JsonLines):
        def read(self, path, mapping):
            path.read_bytes().decode()
            return super().read(path, mapping)

    with pytest.raises(AssertionError, match="damaged file"):
        importer_conformance(Fragile, sample=sample, mapping=mapping, workdir=workdir)
    with pytest.raises((AssertionError, DataError)):
        importer_conformance(Csv, sample=sample, mapping=mapping, workdir=workdir)
