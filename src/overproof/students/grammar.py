"""The grammar of a record: what a generator may write, so that whatever it completes is a record; and where each value stands."""

from __future__ import annotations

import json

from overproof.outputs import Field, Fields

# GBNF, the grammar notation of llama.cpp. A text neither begins nor ends in white space, and nothing is written as \u, so that
# no half of a surrogate pair can be. Numbers are plain decimals; days exist (29 February in leap years only).
SPACE = r"\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000"
RULES = {
    "number": r'"-"? ("0" | [1-9] [0-9]{0,14}) ("." [0-9]{1,6})?',
    "date": '"\\"" (year "-" day | leap "-02-29") "\\""',
    "year": "[12] [0-9] [0-9] [0-9]",
    "leap": '[12] [0-9] ("0" [48] | [2468] [048] | [13579] [26]) | ("1" [26] | "2" [048]) "00"',
    "day": '("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]) | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30")'
    ' | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8])',
    "mark": rf'[^"\\{SPACE}] | "\\" ["\\]',
    "gap": r'([ \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000] | "\\" [nt]){1,4}',
}
LONGEST = 400  # llama.cpp refuses to count much further; longer texts are bounded by the tokens of an answer alone
_DECODER = json.JSONDecoder()


def grammar_of(output: Fields, *, max_chars: int) -> str:
    """
    A GBNF grammar of exactly the canonical records, with texts of bounded length.

    Args:
        output: the fields.
        max_chars: a text has at most so many marks, up to `LONGEST`; bounds what a model without an end could write.

    Returns: rules, "root" first.
    """
    root, rules = [], []
    for at, field in enumerate(output.fields):
        root.append(f"{_literal(('{' if not at else ', ') + json.dumps(field.name) + ': ')} f{at}")
        rules.append(f"f{at} ::= {_value(field, max_chars)}")
    shared = [f"{name} ::= {rule}" for name, rule in RULES.items()]
    return "\n".join([f'root ::= {" ".join(root)} "}}"', *rules, *shared]) + "\n"


def _value(field: Field, max_chars: int) -> str:
    if field.type == "choice":
        found = " | ".join(_literal(json.dumps(value, ensure_ascii=False)) for value in field.values)
    elif field.type == "text":
        times = f"{{0,{max(1, max_chars) - 1}}}" if max_chars <= LONGEST else "*"
        found = f'"\\"" mark (gap? mark){times} "\\""'
    else:
        found = field.type
    return f'{found} | "null"' if field.optional else found


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def spans_of(output: Fields, text: str) -> dict[str, tuple[int, int]]:
    """
    Where each value stands in a record that the grammar made.

    Args:
        output: the fields.
        text: the record as it was written.

    Returns: name to first and past-the-last byte of the value in UTF-8.
    Raises: ValueError for a text of another form.
    """
    found, at = {}, 0
    for place, field in enumerate(output.fields):
        at += len(("{" if not place else ", ") + json.dumps(field.name) + ": ")
        _, end = _DECODER.raw_decode(text, at)
        found[field.name] = (len(text[:at].encode()), len(text[:end].encode()))
        at = end
    return found
