"""The table: what a path leads to, and the document made from it."""

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import DataError
from overproof.serve.admission import Admission
from overproof.serve.openapi import PROBLEMS, SCHEMAS, openapi
from overproof.serve.routes import ENDPOINTS, Router

ROUTER = Router()


@pytest.mark.parametrize(("method", "path", "handler", "params"), [
    ("POST", b"/v1/chat/completions", "chat", {}), ("GET", b"/v1/models", "models", {}), ("HEAD", b"/healthz", "health", {}),
    ("GET", b"/v1/models/overproof/inbox", "model", {"model": "overproof/inbox"}),
    ("GET", b"/v1/models/overproof%2Finbox", "model", {"model": "overproof/inbox"}),
    ("DELETE", b"/v1/models/ft-1", "passed", {"path": "models/ft-1"}), ("POST", b"/v1/files", "passed", {"path": "files"}),
    ("GET", b"/v1/chat/completions/c1", "passed", {"path": "chat/completions/c1"}),
])  # fmt: skip
def test_a_path_leads_to_its_endpoint(method, path, handler, params):
    """Exact paths first, then the longest beginning; what is not named under /v1 is passed through."""
    found = ROUTER.match(method, path)
    assert (found.endpoint.handler, dict(found.params)) == (handler, params)


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("GET", b"/v1/chat/completions", {"POST"}), ("POST", b"/metrics", {"GET"}), ("GET", b"/", set()), ("GET", b"/v1", set()), ("GET", b"/v1/", set()),
    ("GET", b"/overproof/v1/other", set()), ("GET", b"/v1chat", set()), ("OPTIONS", b"/v1/files", {"GET", "POST", "PUT", "PATCH", "DELETE"}),
])  # fmt: skip
def test_what_is_not_served_is_told_from_what_is_served_otherwise(method, path, allowed):
    """A named path with another method is never passed on to the upstream."""
    found = ROUTER.match(method, path)
    assert found.endpoint is None
    assert set(found.allowed) == allowed


@given(st.sampled_from(["GET", "POST", "DELETE"]), st.from_regex(rb"/[a-z0-9/._-]{0,40}", fullmatch=True))
def test_only_paths_below_v1_are_ever_passed_on(method, path):
    """Whatever else there is."""
    found = ROUTER.match(method, path).endpoint
    if found is not None and found.handler == "passed":
        assert path.startswith(b"/v1/")


def test_a_table_with_a_hole_is_refused():
    """Each endpoint has somebody who answers."""
    with pytest.raises(DataError, match="without a handler"):
        Admission({"chat": None}, keyring=None)


def test_the_document_is_valid_and_says_all_of_the_table():
    """By OpenAPI's rules as far as they go without the network; each endpoint is there, each reference leads somewhere."""
    document = json.loads(json.dumps(openapi()))
    jsonschema_rs.validator_for(SHAPE).validate(document)
    found = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert found == {(e.method, e.path) for e in ENDPOINTS}
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    references = {part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}
    assert references <= set(SCHEMAS)
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": document["components"]})


def test_the_document_declares_what_the_way_in_answers():
    """Every status that the guard and the way in can give stands at every endpoint that they stand before."""
    document = openapi()
    for endpoint in ENDPOINTS:
        operation = document["paths"][endpoint.path][endpoint.method.lower()]
        declared = set(operation["responses"])
        assert {"200", "400", "405", "421", "431", "500"} <= declared
        assert ({"401", "403", "429"} <= declared) == (endpoint.scope != "public")
        assert bool(operation["security"]) == (endpoint.scope != "public")
        assert ("default" in declared) == endpoint.upstream
        if endpoint.method == "POST":
            assert {"408", "413", "415"} <= declared
        assert all(code in ("200", "default") or int(code) in PROBLEMS for code in declared)
        if endpoint.streams:
            assert "text/event-stream" in operation["responses"]["200"]["content"]


def test_a_clients_tool_can_read_the_document():
    """schemathesis loads it and makes requests for each endpoint."""
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_dict(openapi())
    made = {(found.ok().method.upper(), found.ok().path) for found in schema.get_all_operations()}
    assert made == {(e.method, e.path) for e in ENDPOINTS}


SHAPE = {
    "type": "object", "required": ["openapi", "info", "paths", "components"],
    "properties": {
        "openapi": {"const": "3.1.0"},
        "info": {"required": ["title", "version"]},
        "paths": {"patternProperties": {"^/": {"patternProperties": {"^(get|post|put|patch|delete)$": {
            "type": "object", "required": ["operationId", "summary", "responses"],
            "properties": {
                "parameters": {"items": {"required": ["name", "in", "required", "schema"], "properties": {"in": {"enum": ["path", "header"]}, "required": {"type": "boolean"}}}},
                "requestBody": {"required": ["content"]},
                "responses": {"minProperties": 1, "patternProperties": {"^([1-5][0-9][0-9]|default)$": {"required": ["description"]}}, "additionalProperties": False},
            },
        }}, "additionalProperties": False}}, "additionalProperties": False},
        "components": {"required": ["schemas", "securitySchemes"]},
    },
}  # fmt: skip
