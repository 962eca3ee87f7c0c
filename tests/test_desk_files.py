"""Files of annotation tools: what goes out comes back, and what is no sound word of a known row is refused and counted."""

import json
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.desk_files import FORMS, form_of, taken, written
from overproof.errors import DataError
from overproof.importers.label_studio import config
from overproof.outputs import Field
from overproof.steps.queues import Asked
from overproof.task import Classes, Fields

OUTPUT = Classes(labels=("bug", "billing", 'how "to" <b>&</b>'))


def asked(number, text="my card", **changes):
    return Asked(**{"digest": f"{number:064d}", "request_id": f"r{number}", "text": text, "queue": "audit", "split": "train", "place": number, **changes})


def known(rows):
    return {row.digest: row for row in rows}


def take(data, form, rows, *, reviewer="Ana", drawn=0, output=OUTPUT):
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return taken(raw, form, asked=known(rows), output=output, reviewer=reviewer, drawn=drawn)


def studio(row, *annotations, **data):
    """A task as Label Studio 1.x exports it: JSON, everything that it writes."""
    return {
        "id": 12, "annotations": list(annotations), "file_upload": "5f2-tasks.json", "drafts": [], "predictions": [],
        "data": {"text": row.text, "overproof_id": row.request_id, "overproof_digest": row.digest, "overproof_queue": row.queue, "overproof_blind": True, **data},
        "meta": {}, "created_at": "2026-03-09T21:52:49.513742Z", "updated_at": "2026-03-09T22:16:08.746926Z", "inner_id": 1,
        "total_annotations": 1, "cancelled_annotations": 0, "total_predictions": 0, "comment_count": 0, "project": 83, "updated_by": 1, "comment_authors": [],
    }  # fmt: skip


def annotation(*labels, by=10, **changes):
    result = [{"value": {"choices": list(labels)}, "id": "Dx_aB91ISN", "from_name": "label", "to_name": "text", "type": "choices", "origin": "manual"}]
    return {
        "id": 1001, "completed_by": by, "result": result if labels else [], "was_cancelled": False, "ground_truth": False, "created_at": "2026-03-09T22:16:08.728353Z",
        "updated_at": "2026-03-09T22:16:08.728378Z", "draft_created_at": None, "lead_time": 4.288, "prediction": {}, "result_count": 1, "task": 12, **changes,
    }  # fmt: skip


def record(row, *responses, status="completed", **changes):
    """A record as Argilla 2.x `records.to_json` writes it."""
    return {
        "id": row.request_id, "fields": {"text": row.text}, "metadata": {"overproof_digest": row.digest, "overproof_queue": row.queue, "overproof_blind": "true"},
        "suggestions": {}, "responses": {"label": [{"value": value, "user_id": who} for value, who in responses]}, "vectors": {}, "status": status,
        "_server_id": "c1d1c1ae-1c1c-4c1c-9c1c-1c1c1c1c1c1c", **changes,
    }  # fmt: skip


def filled(data, form, labels):
    """The exported file with a word on each row, as its tool would hand it back."""
    if form == "jsonl":
        lines = [json.loads(line) for line in data.decode().split("\n") if line]
        return "".join(json.dumps({**line, "label": label, "seconds": 3.5}) + "\n" for line, label in zip(lines, labels, strict=True)).encode()
    rows = json.loads(data)
    for row, label in zip(rows, labels, strict=True):
        if form == "argilla":
            row.update(responses={"label": [{"value": label, "user_id": "u1"}]}, status="completed")
        else:
            row.update(id=1, annotations=[annotation(label)])
    return json.dumps(rows).encode()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.sampled_from(OUTPUT.labels), st.dictionaries(st.sampled_from(["tier", "text", "overproof_digest"]), TEXTS)), min_size=1, max_size=50), st.sampled_from(FORMS))
def test_every_row_comes_back_with_its_word(rows_and_labels, form) -> None:
    """Whatever the messages and attributes hold, in each form, and the form is found by itself."""
    rows = [asked(i, text, attributes=attributes) for i, (text, _, attributes) in enumerate(rows_and_labels)]
    labels = [label for _, label, _ in rows_and_labels]
    data = filled(written(rows, form), form, labels)
    assert form_of(data) == form
    found = take(data, form, rows)
    assert found.refused == {}
    assert [(r.digest, r.request_id, r.label, r.queue, r.blind) for r in found.reviews] == [(r.digest, r.request_id, label, "audit", True) for r, label in zip(rows, labels, strict=True)]


def test_label_studio_keeps_every_annotator_and_passes_over_what_is_no_word() -> None:
    """Cancelled, empty, several labels, another question, a changed text, an unknown row, an unknown label: counted; two people stay two."""
    rows = [asked(i) for i in range(8)]
    other = {**annotation("bug"), "result": [{"from_name": "mood", "to_name": "text", "type": "choices", "value": {"choices": ["bug"]}}]}
    data = [
        studio(rows[0], annotation("bug", by=10), annotation("billing", by={"id": 3, "email": "bo@example.com", "first_name": "Bo", "last_name": ""})),
        studio(rows[1], annotation("bug", was_cancelled=True)), studio(rows[2], annotation()), studio(rows[3], annotation("bug", "billing")), studio(rows[4], other),
        studio(rows[5], annotation("bug"), text="my cards"), studio(asked(99), annotation("bug")), studio(rows[6], annotation("bugs")),
        studio(rows[7], annotation("bug"), overproof_queue="audit"), {"id": 1, "data": {}, "annotations": []},
    ]  # fmt: skip
    found = take(data, "label-studio", rows)
    assert [(r.request_id, r.label, r.reviewer, r.seconds) for r in found.reviews] == [("r0", "bug", "Label Studio 10", 4.288), ("r0", "billing", "bo@example.com", 4.288), ("r7", "bug", "Label Studio 10", 4.288)]
    assert found.refused == {
        "skipped by the annotator": 1, "nothing chosen": 2, "more than one label chosen": 1, "the row changed, or is not of this project": 2, "no answer of this task": 1,
    }  # fmt: skip


def test_label_studios_least_form_is_read_as_well() -> None:
    """JSON_MIN: one flat object for each annotation, where a single choice is a bare string and several are an object."""
    rows = [asked(0), asked(1), asked(2)]
    data = [
        {"text": r.text, "overproof_id": r.request_id, "overproof_digest": r.digest, "overproof_queue": "audit", "overproof_blind": True, "id": i, "label": label,
         "annotator": 1, "annotation_id": 7, "created_at": "2026-03-09T22:16:08.728353Z", "updated_at": "2026-03-09T22:16:08.728378Z", "lead_time": 1.5}
        for i, (r, label) in enumerate(zip(rows, ["bug", {"choices": ["bug", "billing"]}, ""], strict=True))
    ]  # fmt: skip
    del data[2]["label"]
    assert form_of(json.dumps(data).encode()) == "label-studio"
    found = take(data, "label-studio", rows)
    assert [(r.request_id, r.label, r.reviewer) for r in found.reviews] == [("r0", "bug", "Label Studio 1")]
    assert found.refused == {"more than one label chosen": 1, "nothing chosen": 1}


def test_the_labelling_configuration_is_sound_xml_whatever_the_labels() -> None:
    """Quotes, angle brackets and control characters stay inside their attribute, and each label comes out as it went in."""
    labels = ["a<b", 'say "hi" & \'bye\'', "x\ny", "ü💶", "]]>", "--><script>"]
    root = ET.fromstring(config(labels))
    assert [one.get("value") for one in root.iter("Choice")] == labels
    assert [one.tag for one in root.iter()] == ["View", "Text", "Choices", *["Choice"] * len(labels)]
    assert ET.fromstring(config(["a\x00b", "c"])).find("Choices")[0].get("value") == "a\ufffdb"
    assert ET.fromstring(config([])).find("TextArea").get("name") == "label"


def test_argillas_nested_form_counts_completed_records_alone() -> None:
    """It drops a response's status, so that a pending record's may be drafts; several users stay several."""
    rows = [asked(i) for i in range(4)]
    data = [record(rows[0], ("bug", "u1"), ("billing", "u2")), record(rows[1], ("bug", "u1"), status="pending"), record(rows[2]), record(rows[3], ("bug", "u1"), fields={"text": "other"})]
    assert form_of(json.dumps(data).encode()) == "argilla"
    found = take(data, "argilla", rows)
    assert [(r.request_id, r.label, r.reviewer) for r in found.reviews] == [("r0", "bug", "Argilla u1"), ("r0", "billing", "Argilla u2")]
    assert found.refused == {"no response": 1, "the record is not completed, so its responses may be drafts": 1, "the row changed, or is not of this project": 1}


def test_argillas_flattened_form_tells_drafts_from_words() -> None:
    """Submitted responses count, drafts and discarded ones don't, whatever the record's status."""
    row, bare = asked(0), asked(1)
    data = [
        {"id": "r0", "status": "pending", "_server_id": "x", "text": row.text, "overproof_digest": row.digest, "overproof_queue": "audit", "overproof_blind": "true",
         "label.responses": ["bug", "billing", None], "label.responses.users": ["u1", "u2", "u3"], "label.responses.status": ["submitted", "draft", "discarded"], "label.suggestion": None},
        {"id": "r1", "status": "pending", "_server_id": "y", "text": bare.text, "overproof_digest": bare.digest, "overproof_queue": "audit", "label.responses": None,
         "label.responses.users": None, "label.responses.status": None},
    ]  # fmt: skip
    assert form_of(json.dumps(data).encode()) == "argilla"
    found = take(data, "argilla", [row, bare])
    assert [(r.label, r.reviewer) for r in found.reviews] == [("bug", "Argilla u1")]
    assert found.refused == {"response is draft": 1, "response is discarded": 1, "no response": 1}


def test_no_file_makes_a_picked_row_one_that_chance_chose() -> None:
    """An audit word needs a row that was drawn, a fix word a training row; and who contradicts themselves is not believed."""
    rows = [asked(0), asked(500), asked(2, queue="fix", split="test"), asked(3)]
    data = [studio(rows[0], annotation("bug")), studio(rows[1], annotation("bug")), studio(rows[2], annotation("bug")), studio(rows[3], annotation("bug"), annotation("billing"))]
    found = take(data, "label-studio", rows)
    assert [r.request_id for r in found.reviews] == ["r0"]
    assert found.refused == {
        "it stands further on in the draw than the file has rows: review them in their order, and export all of them": 1, "only training rows are in the fix queue": 1, "one person says two things of one row": 2,
    }  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_goes_out_only_with_rows_of_the_fix_queue(form) -> None:
    """And the word that comes back says that it was not blind."""
    rows = [asked(0), asked(1, queue="fix")]
    data = written(rows, form, guesses={row.digest: "bug" for row in rows})
    assert data.count(b'"bug"') == 1
    found = take(filled(data, form, ["bug", "bug"]), form, rows)
    assert [r.blind for r in found.reviews] == [True, False]


@pytest.mark.parametrize("data", [b"", b"\x00\xff", b"[1, 2]", b"[[[", b"text,label\r\n", b"[" * 100_000, b'{"a": 1'[:0] + b"null"])
def test_what_is_no_such_file_is_refused_in_words(data) -> None:
    """Nothing crashes on a wrong file, and nothing is taken from it."""
    with pytest.raises(DataError):
        form_of(data)
    for form in ("argilla", "label-studio"):
        with pytest.raises(DataError):
            take(data, form, [asked(0)])
    assert take(data, "jsonl", [asked(0)]).reviews == ()


def test_records_go_out_and_come_back_as_text() -> None:
    """Where answers are written, the word is the record as JSON, in its normal form."""
    output = Fields(fields=(Field(name="total", type="number"), Field(name="due", type="date", optional=True)))
    row = asked(0)
    result = [{"value": {"text": ['{"total": 12.50, "due": null}']}, "from_name": "label", "to_name": "text", "type": "textarea"}]
    found = take([studio(row, {**annotation(), "result": result})], "label-studio", [row], output=output)
    assert [r.label for r in found.reviews] == [output.parse('{"total": 12.5}')]
