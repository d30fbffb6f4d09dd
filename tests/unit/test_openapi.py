"""/api/openapi.json describes each endpoint, truly and completely."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lib.api import openapi, routes
from lib.api.route import Query, Route
from tests.helpers import read_document

DOCUMENT: dict[str, Any] = json.loads(routes.description())
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
ROUTES = {f"{route.method} {route.path}": route for route in routes.ROUTES}
every_operation = pytest.mark.parametrize("name", sorted(OPERATIONS))


def references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {str(value["$ref"])} if "$ref" in value else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def schemas(value: object) -> list[dict[str, Any]]:
    """Every schema of an object in it."""
    if isinstance(value, list):
        return [found for item in value for found in schemas(item)]
    if not isinstance(value, dict):
        return []
    below = [found for item in value.values() for found in schemas(item)]
    return [value, *below] if "properties" in value and "type" in value else below


def test_each_route_is_described_once() -> None:
    assert set(OPERATIONS) == set(ROUTES)
    assert len(ROUTES) == len(routes.ROUTES)


def test_no_operation_has_the_name_of_another() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))


def test_what_is_referred_to_is_there() -> None:
    for name in references(DOCUMENT):
        place: Any = DOCUMENT
        for part in name.removeprefix("#/").split("/"):
            place = place[part]


def test_what_a_schema_requires_is_among_its_properties() -> None:
    for schema in schemas(DOCUMENT):
        assert set(schema.get("required", ())) <= set(schema["properties"]), schema


@every_operation
def test_an_operation_names_the_parts_of_its_path(name: str) -> None:
    operation = OPERATIONS[name]
    in_path = [item["name"] for item in operation["parameters"] if item["in"] == "path"]
    assert in_path == re.findall(r"{(\w+)}", name)
    in_query = [item["name"] for item in operation["parameters"] if item["in"] == "query"]
    assert len(in_query) == len(set(in_query))


@every_operation
def test_an_operation_tells_every_answer_that_it_may_get(name: str) -> None:
    operation, route = OPERATIONS[name], ROUTES[name]
    told = set(map(int, operation["responses"]))
    assert set(route.answers) <= told
    assert {403, 405, 408, 431, 500, 503} <= told
    assert (401 in told) is not route.open_to_all
    assert "{" not in route.path or {400, 404} <= told
    assert route.body is None or {400, 411, 415} <= told
    assert 413 not in told, "a body that is too long is malformed JSON, as with the original"
    assert any(status < 400 or status == 501 for status in told)


@every_operation
def test_a_refusal_has_the_shape_of_an_error(name: str) -> None:
    for status, answer in OPERATIONS[name]["responses"].items():
        assert answer["description"]
        if int(status) < 400:
            continue
        [(kind, content)] = answer["content"].items()
        if kind == "application/json":
            wanted = "Unauthorized" if status == "401" else "Error"
            assert content["schema"] == {"$ref": f"#/components/schemas/{wanted}"}
        else:
            assert kind in ("text/plain", "text/html")


@every_operation
def test_a_body_is_json(name: str) -> None:
    operation, route = OPERATIONS[name], ROUTES[name]
    assert ("requestBody" in operation) is (route.body is not None)
    if route.body is not None:
        assert list(operation["requestBody"]["content"]) == ["application/json"]


def test_streams_can_be_taken_up_again() -> None:
    streams = [name for name, route in ROUTES.items() if route.kind == "text/event-stream"]
    for name in streams:
        headers = [
            item["name"] for item in OPERATIONS[name]["parameters"] if item["in"] == "header"
        ]
        assert headers == ["Last-Event-ID"]


def test_what_is_open_needs_no_key() -> None:
    security = OPERATIONS["GET /api/v1/health"]["security"]
    assert security == []
    assert {} in OPERATIONS["GET /api/v1/status"]["security"]
    assert {"bearer": []} in OPERATIONS["GET /api/v1/status"]["security"]


def test_the_page_about_the_server_lists_every_endpoint_and_no_other() -> None:
    rows = re.findall(r"^\| `([A-Z]+ /\S*)` \| (.+) \|$", read_document("server.md"), re.MULTILINE)
    assert sorted(rows) == sorted((name, route.about) for name, route in ROUTES.items())


def test_a_route_is_described_as_it_is_declared() -> None:
    route = Route(
        "POST", "/api/{project}/x", routes.describe, "Does it.",
        answers={201: ("Done.", {"type": "integer"}), 204: ("Nothing.", None)},
        query=[Query("q", "How.", {"type": "boolean"}, required=True)],
        body={"type": "object"},
    )  # fmt: skip
    document: Any = openapi.describe([route], {"Extra": {"type": "string"}})
    operation = document["paths"]["/api/{project}/x"]["post"]
    assert operation["operationId"] == "post_api_project_x"
    assert operation["responses"]["201"]["content"] == {
        "application/json": {"schema": {"type": "integer"}}
    }
    assert "content" not in operation["responses"]["204"]
    assert operation["parameters"][1] == {
        "name": "q", "in": "query", "description": "How.", "required": True,
        "schema": {"type": "boolean"},
    }  # fmt: skip
    assert {"Extra", "Error", "Unauthorized"} == set(document["components"]["schemas"])
