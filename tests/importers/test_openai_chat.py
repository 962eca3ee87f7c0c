"""Chat logs: the call's shape, the variable part of the prompt, and answers that can't be labels."""

import hashlib
import json

import pytest

from overproof.data import Completion, Request, Skipped
from overproof.importers import ColumnMapping
from overproof.importers.openai_chat import OpenAIChat
from overproof.task import Classes, Task
from overproof.teachers import messages_for

TEXT = ColumnMapping(fields=("text",))


def response(content="bug", finish="stop", **more):
    message = {"role": "assistant", "content": content, **more}
    return {
        "id": "chatcmpl-1", "created": 1741000000, "model": "big-2026-05-01",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 1},
    }  # fmt: skip


def request(*turns, **more):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return {"model": "big", "messages": [{"role": roles[t[0]], "content": t[2:]} for t in turns], **more}


def imported(tmp_path, *rows, mapping=TEXT):
    path = tmp_path / "calls.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return list(OpenAIChat().read(path, mapping))


def test_a_pair_becomes_a_request_and_what_was_served(tmp_path):
    """Time, model, usage, latency, session and tags of a stored pair land in their places."""
    row = {
        "timestamp": 1741000100, "workload_id": "routing", "client_id": "web", "latency_ms": 400, "user_id": "u7",
        "request": request("s:Route it", "u:It broke", metadata={"tier": "plus"}), "response": response(),
    }  # fmt: skip
    (record,) = imported(tmp_path, row)
    assert record.request == Request(
        id="chatcmpl-1",
        fields={"text": "It broke"},
        at="2025-03-03T11:08:20.000000Z",
        attributes={
            "tier": "plus", "system_prompt": hashlib.sha256(b"Route it").hexdigest()[:12], "turns": "1",
            "workload_id": "routing", "client_id": "web",
        },
        session="u7",
    )
    assert record.completion == Completion(
        text="bug", value=None, model="big-2026-05-01", finish="stop", tokens_in=12, tokens_out=1, latency_s=0.4
    )
    other = imported(tmp_path, row | {"request": request("s:Route it!", "u:It broke")})[0]
    assert other.request.attributes["system_prompt"] != record.request.attributes["system_prompt"]


def test_the_last_user_message_is_the_input_of_a_longer_talk(tmp_path):
    """Earlier turns are counted, and kept where the task has a field called history."""
    row = {"request": request("s:Route", "u:Hi", "a:Hello", "u:My card broke"), "response": response()}
    (record,) = imported(tmp_path, row)
    assert record.request.fields == {"text": "My card broke"}
    assert record.request.attributes["turns"] == "2"
    (whole,) = imported(tmp_path, row, mapping=ColumnMapping(fields=("history", "text")))
    assert whole.request.fields == {"history": "user: Hi\nassistant: Hello", "text": "My card broke"}


def test_input_output_pairs_and_fine_tuning_files_are_read(tmp_path):
    """OpenPipe rows and files of messages give the same request; a bare message doesn't say how it ended."""
    rows = [
        {"input": request("s:Route", "u:It broke"), "output": response(), "tags": {"tier": "plus"}},
        {"input": request("s:Route", "u:It broke"), "output": {"role": "assistant", "content": "bug"}},
        request("s:Route", "u:It broke", "a:bug"),
        {"messages": request("s:Route", "u:It broke")["messages"]},
        {"request": json.dumps(request("s:Route", "u:It broke")), "response": json.dumps(response()), "id": "own"},
    ]
    found = imported(tmp_path, *rows)
    assert [r.request.fields for r in found] == [{"text": "It broke"}] * 5
    assert found[0].request.attributes["tier"] == "plus"
    assert [r.completion and r.completion.finish for r in found] == ["stop", "unknown", "unknown", None, "stop"]
    assert found[4].request.id == "own"


@pytest.mark.parametrize(
    ("said", "finish", "reason"),
    [
        (response(finish="length"), "length", "'length'"),
        (response(finish="content_filter"), "filtered", "content_filter"),
        (response(finish=None), "error", "None"),
        (response(content=None, refusal="I can't"), "filtered", "refused"),
        (response(content=None, tool_calls=[{"id": "1"}]), "error", "tool"),
        (response(content=" "), "stop", "empty"),
        ({"error": {"message": "overloaded"}}, "error", "failed"),
        ({"choices": []}, "error", "None"),
    ],
)
def test_an_unfinished_answer_is_traffic_but_no_label(tmp_path, said, finish, reason):
    """The request stays in the traffic; the answer carries the reason why it can't be learned from."""
    (record,) = imported(tmp_path, {"request": request("u:It broke"), "response": said})
    assert record.completion.finish == finish
    assert reason in record.completion.reason


def test_weight_zero_is_no_label(tmp_path):
    """A fine-tuning file's weight 0 is obeyed."""
    row = request("u:x", "a:bug")
    row["messages"][1]["weight"] = 0
    assert "weight 0" in imported(tmp_path, row)[0].completion.reason


PROMPTS = [
    (("subject", "body"), "Route.\nSubject: {subject}\nBody: {body}\nAnswer with one queue."),
    (("subject", "body"), "{subject}\n--\n{body}"),
    (("subject", "body"), "Only the subject is named: {subject}."),
    (("subject", "body"), "No place at all. {other} stays."),
    (("text",), "Read {text} and again {text}"),
    (("text",), "Classify the message."),
]


@pytest.mark.parametrize(("fields", "prompt"), PROMPTS)
def test_the_prompt_is_taken_apart_as_it_was_filled(tmp_path, fields, prompt):
    """Whatever form the task's prompt has, a call that was made with it gives the fields back."""
    task = Task(name="t", input=fields, output=Classes(labels=("a", "b")), prompt=prompt)
    values = {"subject": "Card {body} (.*)", "body": "It broke.\n\nTwice.", "text": "one\n\ntwo"}
    asked = Request(id="1", fields={name: values[name] for name in fields})
    body = {"messages": [{"role": m.role, "content": m.content} for m in messages_for(task, asked)]}
    (record,) = imported(tmp_path, {"request": body}, mapping=ColumnMapping(fields=fields, prompt=prompt))
    assert dict(record.request.fields) == dict(asked.fields)


def test_another_tasks_call_is_kept_aside(tmp_path):
    """A call that the prompt can't have made is skipped with that reason, not taken for this task's traffic."""
    mapping = ColumnMapping(fields=("text",), prompt="Classify: {text}\nOne word.")
    rows = imported(
        tmp_path,
        {"request": request("u:Translate: hello\nOne word.")},
        {"request": request("u:Classify: hello")},
        {"request": request("u:Classify: \nOne word")},
        {"request": request("u:Classify: hello\nOne word.")},
        mapping=mapping,
    )
    assert [isinstance(row, Skipped) for row in rows] == [True, True, True, False]
    twice = ColumnMapping(fields=("text",), prompt="{text} and again {text}.")
    rows_twice = imported(tmp_path, {"request": request("u:a and again b.")}, {"request": request("u:a and again a.")}, mapping=twice)
    assert [isinstance(row, Skipped) for row in rows_twice] == [True, False]
    assert "another task" in rows[0].reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"request": request("s:x")}, "no user message"),
        ({"request": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}}, "'image_url'"),
        ({"request": {"messages": "hello"}}, "not a list"),
        ({"prompt": "x"}, "no chat call"),
        ({"request": request("u:x"), "response": [1]}, "the answer is a list"),
        ({"request": request("u:x"), "response": response(), "timestamp": "soon"}, "time 'soon'"),
        ([1], "expected an object"),
    ],
)
def test_a_call_that_can_not_be_read_is_kept_aside(tmp_path, row, reason):
    """One odd call is a Skipped with its reason; the next call is read."""
    rows = imported(tmp_path, row, {"request": request("u:fine")})
    assert reason in rows[0].reason
    assert rows[1].request.fields == {"text": "fine"}


def test_parts_of_text_are_joined(tmp_path):
    """Content given as text parts is read as text."""
    row = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}
    assert imported(tmp_path, row)[0].request.fields == {"text": "a\nb"}


def test_hostile_text_is_taken_apart_in_linear_time(tmp_path):
    """Text chosen by a caller can't make the prompt's pattern take quadratic time."""
    import time

    mapping = ColumnMapping(fields=("a", "b"), prompt="x {a}\n{b} end")
    start = time.process_time()
    (row,) = imported(tmp_path, {"request": request("u:x " + "\n" * 2_000_000 + "!")}, mapping=mapping)
    assert isinstance(row, Skipped)
    assert time.process_time() - start < 2
