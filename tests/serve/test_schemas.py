"""Schemas from callers: they reach nothing outside, and can't make the gateway work for long."""

import http.server
import json
import threading

import pytest

from overproof.serve import schemas
from overproof.serve.schemas import MAX_BYTES, checker


def chain(length, branching):
    """Definitions of which each names the next one so many times."""
    steps = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * branching} for i in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": {**steps, f"a{length}": {"type": "string"}}}


def deep(levels):
    found = {"type": "string"}
    for _ in range(levels):
        found = {"items": found}
    return found


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"$ref": "http://127.0.0.1:9/x"}, "outside"), ({"$ref": "file:///etc/hostname"}, "outside"), ({"$ref": "other.json#/a"}, "outside"),
        ({"$ref": "#"}, "outside"), ({"$id": "http://127.0.0.1:9/", "$ref": "x"}, "passed over"), ({"$dynamicRef": "#x"}, "passed over"),
        ({"unevaluatedProperties": False}, "passed over"), ({"$ref": "#/$defs/x", "$defs": {"x": {"items": {"$ref": "#/$defs/x"}}}}, "itself"),
        ({"$ref": "#/$defs/none", "$defs": {}}, "isn't there"), (chain(30, 2), "too long"), (chain(5, 10), "too long"), (chain(3_000, 1), ""),
        (deep(40), "nested"), ({"$defs": {"x": deep(40)}}, "nested"), ({"anyOf": [{"pattern": f"a{i}"} for i in range(33)]}, "patterns"),
        ({"patternProperties": {f"a{i}": {} for i in range(33)}}, "patterns"), ({"pattern": "(?=x)"}, "compiled"), ({"pattern": "(a{900}){900}"}, "compiled"),
        ({"type": 7}, "compiled"), ({"enum": ["x" * MAX_BYTES]}, "longer"),
    ],
)  # fmt: skip
def test_a_schema_that_reaches_out_or_costs_too_much_is_refused(schema, problem):
    """Each with its reason, and without following or compiling it first."""
    found = checker(schema)
    assert found.problem
    assert problem in found.problem
    assert not found.admits("x")


def test_no_reference_is_fetched_even_past_our_own_reading(monkeypatch):
    """With our walk switched off, the library still asks nobody: a server that is listening hears nothing."""
    heard = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"type": "string"}')

    server = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(schemas._Walk, "work", lambda self, node, *, depth: 0)
    try:
        for schema in ({"$ref": f"http://127.0.0.1:{server.server_port}/x"}, {"$ref": __file__}, {"$schema": f"http://127.0.0.1:{server.server_port}/s", "$ref": f"http://127.0.0.1:{server.server_port}/y"}):
            assert checker(schema).problem == "can't be compiled"
    finally:
        server.shutdown()
        server.server_close()
    assert heard == []


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]}, {"a": "x"}, {"a": "y"}), (chain(9, 2), "x", 7),
        ({"properties": {"a": {"$ref": "#/$defs/b~1c"}}, "$defs": {"b/c": {"type": "number"}}}, {"a": 1}, {"a": "1"}),
        ({"properties": {"$ref": {"type": "string"}}}, {"$ref": "x"}, {"$ref": 1}), ({"pattern": "^(a+)+$"}, "aaa", "a" * 40 + "!"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "string"}, "x", 1), ({"type": ["string", "null"], "maxLength": 2}, None, "xyz"),
    ],
)  # fmt: skip
def test_usual_schemas_check_answers(schema, good, bad):
    """Local references, unions, patterns in linear time."""
    found = checker(schema)
    assert found.problem == ""
    assert found.admits(good)
    assert not found.admits(bad)


def test_compiled_schemas_are_kept_and_bounded():
    """The same schema compiles once, and thousands of others don't pile up."""
    schemas._compiled.cache_clear()
    for i in range(schemas._KEPT + 50):
        checker({"const": i})
    assert checker({"const": 300}).admits(300)
    info = schemas._compiled.cache_info()
    assert info.currsize == schemas._KEPT
    assert info.hits == 1
    assert json.dumps(info.maxsize) == str(schemas._KEPT)
