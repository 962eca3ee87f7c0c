"""Label Studio's JSON: tasks to annotate, the labelling configuration, and annotated tasks as it exports them (JSON and JSON_MIN)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from overproof.importers.annotated import (
    BLIND,
    QUESTION,
    Annotated,
    Reading,
    Ticket,
    Word,
    objects,
    pretty,
    seconds_of,
    text_of,
)

TOOL = "Label Studio"
_DRAWN = "overproof_queue"


def tasks(tickets: Sequence[Ticket]) -> bytes:
    """
    Tasks to import into a project.

    Args:
        tickets: the rows.

    Returns: a JSON list; a row with a guess carries it as a prediction.
    """
    return pretty([_task(one) for one in tickets])


def config(labels: Sequence[str]) -> str:
    """
    The labelling configuration to paste into the project's settings.

    Args:
        labels: the choices; none where an answer is written.

    Returns: XML with every label escaped.
    """
    if not labels:
        control = f'<TextArea name="{QUESTION}" toName="text" maxSubmissions="1" editable="true" required="true"/>'
    else:
        choices = "".join(f"<Choice value={_attribute(label)}/>" for label in labels)
        control = f'<Choices name="{QUESTION}" toName="text" choice="single" required="true">{choices}</Choices>'
    return f'<View><Text name="text" value="$text"/>{control}</View>\n'


def annotated(data: bytes) -> Annotated:
    """
    What people said.

    Args:
        data: an export as JSON or JSON_MIN.

    Returns: a word for each annotation that holds one; cancelled and empty ones are counted.
    Raises: DataError where it is no such file.
    """
    found = objects(data, TOOL)
    reading = Reading(len(found))
    for task in found:
        if isinstance(task.get("annotations"), list):
            for one in task["annotations"]:
                _annotation(reading, _object(task.get("data")), _object(one))
        elif isinstance(task.get("completions"), list):
            reading.skip("from a Label Studio older than 1.0")
        else:
            _least(reading, task)
    return reading.done()


def _task(ticket: Ticket) -> dict[str, Any]:
    data = {
        **{f"attribute_{name}": value for name, value in ticket.attributes.items()},
        "text": ticket.text, "overproof_id": ticket.request_id, "overproof_digest": ticket.digest, _DRAWN: ticket.queue, BLIND: not ticket.guess,
    }  # fmt: skip
    if not ticket.guess:
        return {"data": data}
    result = {"id": "guess", "from_name": QUESTION, "to_name": "text", "type": "choices", "value": {"choices": [ticket.guess]}}
    return {"data": data, "predictions": [{"model_version": ticket.model, "result": [result]}]}


def _annotation(reading: Reading, data: Mapping[str, Any], one: Mapping[str, Any]) -> None:
    if one.get("was_cancelled") is True:
        reading.skip("skipped by the annotator")
        return
    results = [r for r in one.get("result") or [] if isinstance(r, dict) and r.get("from_name") == QUESTION]
    said = [text for r in results for text in _chosen(_object(r.get("value")))]
    if len(said) != 1:
        reading.skip("nothing chosen" if not said else "more than one label chosen")
        return
    reading.add(_word(data, said[0], _person(one.get("completed_by")), one.get("lead_time")))


def _least(reading: Reading, task: Mapping[str, Any]) -> None:
    """JSON_MIN: one flat object for each annotation, a single choice as a bare string."""
    found = task.get(QUESTION)
    said = [found] if isinstance(found, str) and found else _chosen(_object(found)) if isinstance(found, dict) else [t for t in found if isinstance(t, str)] if isinstance(found, list) else []
    if len(said) != 1:
        reading.skip("nothing chosen" if not said else "more than one label chosen")
        return
    reading.add(_word(task, said[0], _person(task.get("annotator")), task.get("lead_time")))


def _word(data: Mapping[str, Any], label: str, reviewer: str, seconds: Any) -> Word:
    return Word(
        digest=text_of(data.get("overproof_digest")), text=text_of(data.get("text")), queue=text_of(data.get(_DRAWN)), label=label,
        reviewer=reviewer, seconds=seconds_of(seconds), blind=data.get(BLIND) is not False,
    )  # fmt: skip


def _chosen(value: Mapping[str, Any]) -> list[str]:
    for kind in ("choices", "text", "labels"):
        found = value.get(kind)
        if isinstance(found, list | str):
            return [found] if isinstance(found, str) else [one for one in found if isinstance(one, str)]
    return []


def _person(value: Any) -> str:
    """An annotator by address where the export has one, else by number."""
    if isinstance(value, dict):
        return text_of(value.get("email")) or (f"Label Studio {value['id']}" if "id" in value else "")
    return value if isinstance(value, str) else f"Label Studio {value}" if isinstance(value, int) and not isinstance(value, bool) else ""


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _attribute(text: str) -> str:
    """As an XML attribute in quotes; characters that XML can't say become a mark."""
    sound = "".join(c if c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000" else "\ufffd" for c in text)
    return quoteattr(sound, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
