"""Argilla's JSON: records to log, and records as `records.to_json` and the flattened list write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from overproof.importers.annotated import (
    BLIND,
    QUESTION,
    Annotated,
    Reading,
    Ticket,
    Word,
    objects,
    pretty,
    text_of,
)

TOOL = "Argilla"
SUBMITTED, COMPLETED = "submitted", "completed"


def records(tickets: Sequence[Ticket]) -> bytes:
    """
    Records to read with `dataset.records.from_json`.

    Args:
        tickets: the rows.

    Returns: a JSON list in the nested form; a row with a guess carries it as a suggestion.
    """
    return pretty([_record(one) for one in tickets])


def annotated(data: bytes) -> Annotated:
    """
    What people said.

    Args:
        data: nested, as `to_json` writes it, or the list of `to_list(flatten=True)`.

    Returns: a word for each submitted response. The nested form drops a response's status, so that it counts only where
        its record is completed.
    Raises: DataError where it is no such file.
    """
    found = objects(data, TOOL)
    reading = Reading(len(found))
    for record in found:
        if f"{QUESTION}.responses" in record:
            _flat(reading, record)
        else:
            _nested(reading, record)
    return reading.done()


def _record(ticket: Ticket) -> dict[str, Any]:
    about = {"overproof_digest": ticket.digest, "overproof_queue": ticket.queue, BLIND: "true" if not ticket.guess else "false"}
    guess = {QUESTION: {"value": ticket.guess, "score": None, "agent": ticket.model}} if ticket.guess else {}
    return {
        "id": ticket.request_id, "fields": {"text": ticket.text}, "metadata": {**{f"attribute_{n}": v for n, v in ticket.attributes.items()}, **about},
        "suggestions": guess, "responses": {}, "vectors": {}, "status": "pending",
    }  # fmt: skip


def _nested(reading: Reading, record: Mapping[str, Any]) -> None:
    responses = record.get("responses")
    given = responses.get(QUESTION) if isinstance(responses, dict) else None
    given = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    if not given:
        reading.skip("no response")
        return
    if record.get("status") != COMPLETED:
        for _ in given:
            reading.skip("the record is not completed, so its responses may be drafts")
        return
    fields, about = record.get("fields"), record.get("metadata")
    for one in given:
        _say(reading, fields if isinstance(fields, dict) else {}, about if isinstance(about, dict) else {}, one.get("value"), one.get("user_id"))


def _flat(reading: Reading, record: Mapping[str, Any]) -> None:
    head = f"{QUESTION}.responses"
    values, people, states = (record.get(name) or [] for name in (head, f"{head}.users", f"{head}.status"))
    if not all(isinstance(column, list) for column in (values, people, states)) or not values:
        reading.skip("no response")
        return
    for value, person, state in zip_longest(values, people, states):
        if state == SUBMITTED:
            _say(reading, record, record, value, person)
        else:
            reading.skip(f"response is {state if state in ('draft', 'discarded') else 'not submitted'}")


def _say(reading: Reading, fields: Mapping[str, Any], about: Mapping[str, Any], value: Any, person: Any) -> None:
    if not isinstance(value, str) or not value:
        reading.skip("nothing chosen" if not value else "more than one label chosen")
        return
    reading.add(Word(
        digest=text_of(about.get("overproof_digest")), text=text_of(fields.get("text")), queue=text_of(about.get("overproof_queue")),
        label=value, reviewer=f"Argilla {person}" if person else "", blind=str(about.get(BLIND)).casefold() != "false",
    ))  # fmt: skip
