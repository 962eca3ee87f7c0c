"""Calls of a task are known by name or by the fixed part of the prompt, with the fields that an import of them gives."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import overproof
from overproof.data import Request, TrafficRecord
from overproof.errors import DataError
from overproof.importers import ColumnMapping
from overproof.importers.openai_chat import OpenAIChat
from overproof.project import load_project
from overproof.serve.shapes import BadCall, read_call
from overproof.serve.tasks import MOST_ATTRIBUTES, Tasks, attributes_of, session_of, with_model
from overproof.teachers import messages_for

CHAT = "/v1/chat/completions"
INBOX = Path(overproof.__file__).parent / "inbox"
PLACES = "Sort this letter into one of the queues below: sales, help.\n\nSubject: {subject}\nLetter: {text}\nQueue:"


@pytest.fixture(scope="module")
def inbox():
    return load_project(INBOX / "overproof.toml")


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return project(tmp_path_factory.mktemp("letters") / "p")


def project(root, name="letters", *, prompt=PLACES, fields='["subject", "text"]', tables=""):
    root.mkdir()
    (root / "prompt.md").write_text(prompt + "\n")
    (root / "overproof.toml").write_text(f"""
[task]
name = "{name}"
input = {fields}
prompt = "prompt.md"
output = {{ classes = ["sales", "help"] }}

[teacher]
use = "openai.v1"
model = "big-2026-05-01"
base_url = "https://api.example.com/v1"
budget_usd = 1.0
price_in_usd_per_million = 1.0
price_out_usd_per_million = 1.0

[bars]
fidelity = 0.9

[[student]]
use = "linear.v1"

{tables}""")
    return load_project(root / "overproof.toml")


def called(*turns, path=CHAT, **more):
    roles = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool"}
    return read_call(path, json.dumps({"model": "m", "messages": [{"role": roles[t[0]], "content": t[2:]} for t in turns], **more}).encode())


def asking(task, fields):
    """As a client sends what the package itself would ask the teacher."""
    turns = messages_for(task, Request(id="1", fields=fields))
    return {"model": "gpt", "messages": [{"role": one.role, "content": one.content} for one in turns]}


def imported(tmp_path, bodies, mapping):
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]}
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"request": body, "response": answer}) + "\n" for body in bodies))
    return list(OpenAIChat().read(path, mapping))


def test_every_message_of_the_bundled_inbox_is_recognised_as_its_import_reads_it(inbox, tmp_path):
    """Sent as the openai client sends them: same task, same fields, same attributes and session as in an imported log."""
    rows = [json.loads(line) for line in (INBOX / "messages.jsonl").read_text().splitlines()]
    bodies = [
        asking(inbox.task, {"text": row["text"]}) | {"user": row["id"], "metadata": {name: row[name] for name in ("channel", "tier", "language")}}
        for row in rows
    ]  # fmt: skip
    tasks = Tasks([inbox])
    log = imported(tmp_path, bodies, ColumnMapping(fields=inbox.task.input, prompt=inbox.task.prompt))
    assert len(log) == len(rows) > 400
    for row, body, record in zip(rows, bodies, log, strict=True):
        assert isinstance(record, TrafficRecord)
        call = read_call(CHAT, json.dumps(body, ensure_ascii=False).encode())
        found = tasks.recognise(call)
        assert found is not None
        assert (found.task, found.by, found.unseen) == ("northlane-inbox", "fingerprint", "")
        assert found.fields == record.request.fields == {"text": row["text"]}
        assert attributes_of((), call, found) == {**record.request.attributes, "user": row["id"]}
        assert session_of("user", (), call) == record.request.session == row["id"]


ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
CONTENT = st.text(max_size=12) | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=6)}), max_size=2) | st.none()


@given(st.lists(st.fixed_dictionaries({"role": ROLES, "content": CONTENT}), max_size=4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_conversation_gives_the_fields_of_its_import(inbox, tmp_path_factory, messages, named):
    """Named or with the task's prompt before it; what can't be imported has no fields here either."""
    body = {"model": "overproof/northlane-inbox" if named else "m", "messages": messages if named else [{"role": "system", "content": inbox.task.prompt}, *messages]}
    call = read_call(CHAT, json.dumps(body).encode())
    found = Tasks([inbox]).recognise(call)
    mapping = ColumnMapping(fields=inbox.task.input, prompt=inbox.task.prompt)
    record = imported(tmp_path_factory.mktemp("log"), [body], mapping)[0]
    if found is not None and found.fields:
        assert isinstance(record, TrafficRecord)
        assert found.fields == record.request.fields
        assert found.derived == record.request.attributes
    elif named:
        assert found is not None
        assert found.unseen
        assert not isinstance(record, TrafficRecord)


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=40, deadline=None)
def test_a_filled_prompt_is_taken_apart_as_an_import_does(letters, tmp_path_factory, subject, text):
    """With places in the prompt there is no system message, and the user message alone is the fingerprint."""
    body = asking(letters.task, {"subject": subject, "text": text})
    found = Tasks([letters]).recognise(read_call(CHAT, json.dumps(body).encode()))
    record = imported(tmp_path_factory.mktemp("log"), [body], ColumnMapping(fields=letters.task.input, prompt=letters.task.prompt))[0]
    assert found is not None
    assert isinstance(record, TrafficRecord)
    assert found.fields == record.request.fields
    if "\nLetter: " not in subject + "\nLetter:":
        assert found.fields == {"subject": subject, "text": text}


def test_what_does_not_fit_is_nobodys(inbox, letters):
    """Another system prompt, none, a part of it, a picture, odd shapes: passed through."""
    tasks = Tasks([inbox, letters])
    prompt = inbox.task.prompt
    pictured = [{"role": "system", "content": prompt}, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    for call in (
        called("u Hello"), called("s You are helpful.", "u Hello"), called(f"s {prompt[:-9]}", "u Hello"), called(f"s {prompt} Be brief.", "u Hello"),
        called(f"s {prompt}", "s Be brief.", "u Hello"), called(f"s {prompt}"), called(f"s {prompt}", messages=pictured), called("u x", messages=None),
        called("u x", messages=[1]), called("u x", messages=[{"role": "system"}, {"role": "user", "content": "x"}]), called(messages="x"),
        called("s Other.", "u " + PLACES.format(subject="a", text="b")), called("u " + PLACES.format(subject="a", text="b") + " Be brief."),
        called("u Hello", system=prompt), called("u x", messages=[{"role": "system", "content": [{"type": "image_url"}]}]),
        called("u x", messages=[{"role": "system", "content": prompt}, {"role": "user", "content": 5}]), called("u x", model=7), called("u x", model=["a"]),
    ):  # fmt: skip
        assert tasks.recognise(call) is None


def test_white_space_and_parts_and_the_newer_role_do_not_hide_the_prompt(inbox):
    """Folded line ends, indentation, a developer message, text parts: the same prompt still."""
    tasks, prompt = Tasks([inbox]), inbox.task.prompt
    parts = [{"role": "system", "content": [{"type": "text", "text": prompt}]}, {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]}]
    for call, text in (
        (called("s " + prompt.replace("\n", "\r\n  "), "u Hi"), "Hi"), (called("s   " + prompt + "\n\n", "u Hi"), "Hi"), (called("d " + prompt, "u  Hi "), " Hi "),
        (called(messages=parts), "Hi\nthere"),
    ):  # fmt: skip
        found = tasks.recognise(call)
        assert found is not None
        assert found.fields == {"text": text}


def test_what_the_student_does_not_see_is_said(inbox, tmp_path):
    """Earlier turns leave a fingerprinted call to the teacher, unless they are an input; tools and later turns do in any case."""
    tasks, prompt = Tasks([inbox]), inbox.task.prompt
    system = f"s {prompt}"
    tool = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
    before = [{"role": "system", "content": prompt}, {"role": "user", "content": "a"}, tool, {"role": "tool", "content": "7", "tool_call_id": "1"}, {"role": "user", "content": "b"}]
    cases = {
        "": called(system, "u b"), "earlier turns that": called(system, "u a", "a x", "u b"), "turns after": called(system, "u b", "a The answer is"),
    }  # fmt: skip
    for words, call in cases.items():
        found = tasks.recognise(call)
        assert found is not None
        assert found.fields == {"text": "b"}
        assert found.unseen.startswith(words)
        assert bool(words) == bool(found.unseen)
    later = tasks.recognise(called(messages=before[:-1]))
    assert later is not None
    assert later.derived["tool_results"] == "1"
    assert later.unseen
    by_name = "overproof/northlane-inbox"
    trusted = tasks.recognise(called("s Anything.", "u a", "a x", "u b", model=by_name))
    assert trusted is not None
    assert (trusted.unseen, trusted.by, trusted.derived["turns"]) == ("", "alias", "2")
    tooled = tasks.recognise(called(messages=before, model=by_name))
    assert tooled is not None
    assert tooled.unseen == "tools or pictures in earlier turns"
    talk = Tasks([project(tmp_path / "p", prompt="Name the queue that the last message belongs to.", fields='["history", "text"]')])
    found = talk.recognise(called("s Name the queue that the last message belongs to.", "u a", "a x", "u b"))
    assert found is not None
    assert (found.fields, found.unseen) == ({"history": "user: a\nassistant: x", "text": "b"}, "")


def test_a_template_is_a_fingerprint_where_it_says_enough(tmp_path):
    """With the task's prompt as the system message any template will do; alone it needs words of its own."""
    long, short = "Which queue gets this message?\nMessage: {text}\nQueue:", "Message: {text}"
    for at, (template, alone) in enumerate(((long, True), (short, False))):
        one = project(tmp_path / f"p{at}", prompt="Sort letters into queues.", fields='["text"]', tables=f"[traffic]\ntemplate = {json.dumps(template)}\n")
        tasks = Tasks([one])
        filled = template.replace("{text}", "Hi {text}")
        whole = tasks.recognise(called("s Sort letters into queues.", f"u {filled}"))
        assert whole is not None
        assert whole.fields == {"text": "Hi {text}"}
        assert (tasks.recognise(called(f"u {filled}")) is not None) == alone
        assert tasks.recognise(called("s Other.", f"u {filled}")) is None
        assert tasks.recognise(called("s Sort letters into queues.", "u Hi")) is None
        old = tasks.recognise(read_call("/v1/completions", json.dumps({"model": "m", "prompt": filled}).encode()))
        assert (old is not None) == alone


def test_several_tasks_live_side_by_side_and_look_alikes_need_names(inbox, letters, tmp_path):
    """Each call goes to its own task; two with one prompt are told at start, and are nobody's by fingerprint."""
    other = project(tmp_path / "b", "notes", prompt=PLACES.replace("letter", "note"))
    tasks = Tasks([inbox, letters, other])
    for one in (inbox, letters, other):
        body = asking(one.task, dict.fromkeys(one.task.input, "x"))
        found = tasks.recognise(read_call(CHAT, json.dumps(body).encode()))
        assert found is not None
        assert found.task == one.task.name
    assert tasks.alike == []
    twin = project(tmp_path / "c", "twin")
    with pytest.warns(RuntimeWarning, match="letters, twin have the same prompt"):
        both = Tasks([letters, twin])
    assert both.recognise(called("u " + PLACES.format(subject="a", text="b"))) is None
    named = both.recognise(called("u " + PLACES.format(subject="a", text="b"), model="overproof/twin"))
    assert named is not None
    assert (named.task, named.fields) == ("twin", {"subject": "a", "text": "b"})


def test_a_message_that_two_frames_take_apart_is_nobodys(tmp_path):
    """Not the same template, but one that contains the other: the caller has to name the task."""
    wide = project(tmp_path / "a", "wide", prompt="Read this carefully and name the queue: {text}", fields='["text"]')
    narrow = project(tmp_path / "b", "narrow", prompt="Read this carefully and name the queue: {text} (one word)", fields='["text"]')
    tasks = Tasks([wide, narrow])
    assert tasks.recognise(called("u Read this carefully and name the queue: hi")).task == "wide"
    assert tasks.recognise(called("u Read this carefully and name the queue: hi (one word)")) is None


def test_names_of_tasks_are_listed_and_may_not_collide(inbox, tmp_path):
    """`overproof/TASK` and the aliases of the file; the same name twice stops the start."""
    one = project(tmp_path / "a", tables='[gateway]\naliases = ["letters-v1", "letters-v1"]\n')
    listed = Tasks([inbox, one]).models()
    assert [entry["id"] for entry in listed] == ["overproof/northlane-inbox", "overproof/letters", "letters-v1"]
    assert all(entry["object"] == "model" for entry in listed)
    with pytest.raises(DataError, match="letters-v1"):
        Tasks([one, project(tmp_path / "b", "other", tables='[gateway]\naliases = ["letters-v1"]\n')])
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    with pytest.raises(DataError, match="overproof/letters"):
        Tasks([one, load_project(tmp_path / "c" / "overproof.toml")])


def test_the_teacher_gets_its_own_name_and_all_else_as_it_was(tmp_path):
    """Only the value of the outer `model` changes, wherever the word stands besides."""
    one = project(tmp_path / "a", prompt="Sort letters into queues, please.", fields='["text"]')
    raw = rb'{ "metadata": {"model": "overproof\/letters"}, "messages":[{"role":"user","content":"\"model\": \"overproof/letters\" \u00e9 \ud83d\ude00","x":1.10}],  "model" :  "overproof\/letters" , "n":1e0}'
    call = read_call(CHAT, raw)
    found = Tasks([one]).recognise(call)
    assert found is not None
    assert found.by == "alias"
    assert found.upstream_body(raw) == raw.replace(rb'"model" :  "overproof\/letters"', b'"model" :  "big-2026-05-01"')
    asked = read_call(CHAT, json.dumps(asking(one.task, {"text": "x"})).encode())
    plain = Tasks([one]).recognise(asked)
    assert plain is not None
    assert plain.upstream_body(raw) is raw
    with pytest.raises(BadCall, match="model"):
        with_model(rb'{"mod\u0065l": "overproof/letters", "metadata": {"model": "x"}}', "m")


@given(st.dictionaries(st.sampled_from(["model", "metadata", "a", "messages"]), st.recursive(st.text() | st.just('"model": "x"') | st.integers(), lambda x: st.lists(x, max_size=2) | st.dictionaries(st.sampled_from(["model", "b"]), x, max_size=2)), max_size=4), st.text(), st.text(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_another_model_changes_nothing_else(rest, old, new, escaped):
    """Whatever stands around it."""
    raw = json.dumps({**rest, "model": old}, ensure_ascii=escaped).encode("utf-8", "replace")
    changed = with_model(raw, new)
    before, after = json.loads(raw), json.loads(changed)
    assert after == before | {"model": new}
    assert list(after) == list(before)
    assert len(changed) - len(json.dumps(new)) == len(raw) - len(json.dumps(before["model"], ensure_ascii=escaped).encode())


def test_attributes_come_from_body_headers_and_messages():
    """Short scalars; headers go before metadata; labels are never segments; what messages say can't be overruled; all bounded."""
    call = called("u x", user="u1", metadata={"tier": "gold", "n": 3, "deep": {"a": 1}, "long": "x" * 201, "label": "sales", "turns": "9", "empty": ""})
    headers = [(b"host", b"h"), (b"x-overproof-attr-tier", b" plus "), (b"x-overproof-attr-gold", b"sales"), (b"x-overproof-attr-city", "Köln".encode())]
    assert attributes_of(headers, call) == {"tier": "plus", "n": "3", "user": "u1", "turns": "9", "city": "Köln"}
    assert attributes_of((), called("u x", metadata=[1], user=["x"])) == {}
    many = called("u x", metadata={f"k{i}": "v" for i in range(100)})
    found = attributes_of([(b"x-overproof-attr-tier", b"plus")], many)
    assert len(found) == MOST_ATTRIBUTES
    assert found["tier"] == "plus"


def test_attributes_that_messages_say_go_before_what_the_caller_says(inbox):
    """A caller can't put itself into another slice of turns."""
    call = called(f"s {inbox.task.prompt}", "u x", metadata={"turns": "9"})
    found = attributes_of([(b"x-overproof-attr-system_prompt", b"mine")], call, Tasks([inbox]).recognise(call))
    assert found["turns"] == "1"
    assert found["system_prompt"] != "mine"


@pytest.mark.parametrize(
    ("how", "expected"), [("user", "u1"), ("metadata.thread", "7"), ("metadata.none", None), ("header.X-Session", "s9"), ("header.none", None)]
)
def test_the_session_comes_from_where_the_file_says(how, expected):
    """The body's user, a key of metadata, a header."""
    call = called("u x", user="u1", metadata={"thread": 7})
    assert session_of(how, [(b"x-session", b" s9 ")], call) == expected


def test_a_long_session_is_its_digest_and_an_empty_one_is_none():
    """So that two long ones stay apart and rows stay small."""
    one, other = (session_of("user", (), called("u x", user="x" * 500 + end)) for end in "ab")
    assert one is not None
    assert other is not None
    assert len(one) == 64
    assert one != other
    assert session_of("user", (), called("u x", user="")) is None
    assert session_of("metadata.a", (), called("u x", metadata="no")) is None
