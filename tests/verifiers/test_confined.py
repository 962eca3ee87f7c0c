"""The user's own checks in a process of their own: what they say, and what their faults cost."""

import os
import re
import stat
import sys
from pathlib import Path

import pytest

from overproof.data import Completion, Request
from overproof.errors import DataError
from overproof.task import Classes
from overproof.verifiers.command import Command
from overproof.verifiers.confined import Confined

OUTPUT = Classes(labels=("billing", "bug", "other"))
REQUEST = Request(id="r", fields={"text": "I was charged twice, order 1234"})
SAID = [Completion(text="Bug!", value="bug", model="m"), Completion(text="billing", value="billing", model="m")]
CHECKS = """
import os, subprocess, sys, time
from pathlib import Path
from overproof.data import Judgement

def order(request, target):
    return "1234" in request.text and target == "bug"

def reason(request, target):
    print("chatter on standard output")
    return "no order id"

def nothing(request, target):
    return None

def crash(request, target):
    return 1 / 0

def hang(request, target):
    if target == "bug":
        time.sleep(600)
    return True

def spin(request, target):
    while target == "bug":
        pass
    return True

def greedy(request, target):
    return len(bytearray(3 * 2**30)) > 0 if target == "bug" else True

def die(request, target):
    if target == "bug":
        os._exit(7)
    return True

def secret(request, target):
    return "sees the key" if "OP_TEST_KEY" in os.environ else True

def write(request, target):
    (Path(__file__).parent / "written").write_text("x" * 100)
    return True

number = 3

class Short:
    def __init__(self, *, output, most):
        self.most, self.labels = most, output.labels

    def judge(self, request, completions, target):
        fits = len(completions) <= self.most and target in self.labels
        return Judgement(keep=fits, reason="" if fits else "too many samples", score=0.5)
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "op_own_checks.py").write_text(CHECKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[Confined] = []

    def make(name: str, **options: object) -> Confined:
        made.append(Confined(output=OUTPUT, function=f"op_own_checks:{name}", **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_function_keeps_rejects_and_gives_reasons(check) -> None:
    """True keeps, False rejects, a text rejects and is the reason; what it prints is nobody's business."""
    assert check("order").judge(REQUEST, SAID, "bug").keep
    assert check("order").judge(REQUEST, SAID, "other").reason == "the function said no"
    assert check("reason").judge(REQUEST, SAID, "bug").reason == "no order id"


def test_a_class_gets_labels_options_and_samples(check) -> None:
    """A verifier of one's own is made and asked in the child, and its score comes back."""
    assert check("Short", most=2).judge(REQUEST, SAID, "bug").score == 0.5
    assert check("Short", most=1).judge(REQUEST, SAID, "bug").reason == "too many samples"
    with pytest.raises(DataError, match="most"):
        check("Short")


@pytest.mark.parametrize(("name", "words"), [("nothing", "returned None"), ("crash", "ZeroDivisionError"), ("die", "exit code 7")])
def test_a_check_that_fails_stops_the_run_unless_told_otherwise(check, name: str, words: str) -> None:
    """A check that crashed has checked nothing: by default nobody learns from its silence."""
    with pytest.raises(DataError, match=words):
        check(name).judge(REQUEST, SAID, "bug")


@pytest.mark.parametrize("policy", ["drop", "keep"])
@pytest.mark.parametrize(
    ("name", "words"),
    [("hang", "longer than 1 s"), ("spin", "(longer than|SIGXCPU)"), ("greedy", "MemoryError"), ("die", "exit code 7"), ("crash", "ZeroDivision")],
)
def test_what_hangs_eats_or_dies_costs_one_row(check, name: str, words: str, policy: str) -> None:
    """The row is dropped or kept with the reason, as the file says, and the next row is judged by a fresh process."""
    limits = {"timeout_s": 1.0, "memory_mb": 1024, "on_failure": policy}
    one = check(name, limits=limits)
    found = one.judge(REQUEST, SAID, "bug")
    assert found.keep is (policy == "keep")
    assert re.search(words, found.reason), found.reason
    if name != "crash":
        assert one.judge(REQUEST, SAID, "other").keep


def test_a_check_sees_no_key_and_writes_no_file(check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our environment stays ours, and a check can't leave anything behind."""
    monkeypatch.setenv("OP_TEST_KEY", "sk-secret")
    assert check("secret").judge(REQUEST, SAID, "bug").keep
    with pytest.raises(DataError, match=r"(SIGXFSZ|OSError|File too large)"):
        check("write").judge(REQUEST, SAID, "bug")
    assert not (tmp_path / "written").exists() or (tmp_path / "written").read_text() == ""


def test_closing_ends_the_process(check) -> None:
    """No child outlives the filter."""
    one = check("order")
    pid = one._child.pid
    one.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_cant_be_loaded_is_told_when_it_is_made(check) -> None:
    """A wrong module, a wrong name, something that is no function, and limits that make no sense."""
    with pytest.raises(DataError, match="op_nowhere"):
        Confined(output=OUTPUT, function="op_nowhere:check")
    with pytest.raises(DataError, match="no function"):
        check("number")
    with pytest.raises(DataError, match="no function without options"):
        check("order", most=3)
    for limits in ({"seconds": 3}, {"timeout_s": 0}, {"memory_mb": 1}, {"on_failure": "ignore"}, {"timeout_s": "5"}):
        with pytest.raises(DataError, match="limits"):
            check("order", limits=limits)


def script(folder: Path, body: str) -> str:
    path = folder / "check.py"
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_program_says_yes_no_and_why(tmp_path: Path) -> None:
    """Exit code 0 keeps; 1 drops, with the first line as the reason; the row comes as JSON."""
    body = "import json, sys\nrow = json.load(sys.stdin)\nif row['target'] != 'bug':\n    print('only bugs\\nmore')\n    sys.exit(1)\n"
    one = Command(output=OUTPUT, command=[script(tmp_path, body)])
    assert one.judge(REQUEST, SAID, "bug").keep
    assert one.judge(REQUEST, SAID, "other").reason == "only bugs"


def test_a_program_that_hangs_or_breaks_is_a_failure_not_an_answer(tmp_path: Path) -> None:
    """Another exit code or no end stops the run, or costs one row where the file says so."""
    with pytest.raises(DataError, match="ended with 3"):
        Command(output=OUTPUT, command=[script(tmp_path, "import sys\nsys.exit(3)\n")]).judge(REQUEST, SAID, "bug")
    slow = script(tmp_path, "import time\ntime.sleep(600)\n")
    found = Command(output=OUTPUT, command=[slow], limits={"timeout_s": 1, "on_failure": "drop"}).judge(REQUEST, SAID, "bug")
    assert (found.keep, found.reason) == (False, "the check failed: took longer than 1 s")


def test_a_program_that_isnt_there_is_told_when_it_is_made(tmp_path: Path) -> None:
    """A typo in the file is an error, not a rule that keeps everything."""
    for command in ([str(tmp_path / "nothing")], [], "echo yes"):
        with pytest.raises(DataError, match="no program"):
            Command(output=OUTPUT, command=command)
