"""`make contract` tells changes that break clients of an API from changes that do not."""

import importlib.util
from typing import Any

import pytest

from tests.projects import ROOT

SPEC = importlib.util.spec_from_file_location("changes", ROOT / "template/scripts/contract/changes.py")
assert SPEC and SPEC.loader
changes = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(changes)

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 1, "maximum": 100}
ITEM: Schema = {"type": "object", "properties": {"name": TEXT, "note": TEXT}, "required": ["name", "note"]}
TREE: Schema = {
    "type": "object",
    "properties": {"name": TEXT, "parent": {"anyOf": [{"$ref": "#/components/schemas/Tree"}, {"type": "null"}]}},
}


def parameter(schema: Schema = COUNT, name: str = "limit", **more: Any) -> Schema:
    return {"in": "query", "name": name, "schema": schema, **more}


def api(
    *parameters: Schema, body: Schema | None = None, answer: Schema = ITEM, path: str = "/items", **more: Any
) -> Schema:
    """An API with one operation."""
    operation: Schema = {"parameters": list(parameters), "responses": {"200": content(answer), "404": {}}, **more}
    if body is not None:
        operation["requestBody"] = {"required": True, **content(body)}
    return {"paths": {path: {"post": operation}}, "components": {"schemas": {"Item": ITEM, "Tree": TREE}}}


def content(schema: Schema) -> Schema:
    return {"content": {"application/json": {"schema": schema}}}


def without(name: str) -> Schema:
    """An item without a property."""
    kept = {key: each for key, each in ITEM["properties"].items() if key != name}
    return {**ITEM, "properties": kept, "required": list(kept)}


def with_(schema: Schema, required: bool) -> Schema:
    """An item with one more property."""
    names = [*ITEM["required"], *(["price"] if required else [])]
    return {**ITEM, "properties": {**ITEM["properties"], "price": schema}, "required": names}


HERE = "POST /items"
NULLABLE = {"anyOf": [TEXT, {"type": "null"}]}
BREAKING: dict[str, tuple[Schema, Schema, str]] = {
    "operation gone": (api(), api(path="/things"), f"{HERE}: is gone"),
    "parameter gone": (api(parameter()), api(), f"{HERE}, query limit: is gone"),
    "parameter renamed": (api(parameter()), api(parameter(name="size")), f"{HERE}, query limit: is gone"),
    "new required parameter": (api(), api(parameter(required=True)), f"{HERE}, query limit: is required"),
    "parameter required now": (
        api(parameter()),
        api(parameter(required=True)),
        f"{HERE}, query limit: is required",
    ),
    "lower maximum": (
        api(parameter()),
        api(parameter({**COUNT, "maximum": 50})),
        f"{HERE}, query limit: maximum was 100, is 50",
    ),
    "new maximum": (
        api(parameter({"type": "integer"})),
        api(parameter({"type": "integer", "maximum": 5})),
        f"{HERE}, query limit: maximum was not set, is 5",
    ),
    "higher minimum": (
        api(parameter()),
        api(parameter({**COUNT, "minimum": 2})),
        f"{HERE}, query limit: minimum was 1, is 2",
    ),
    "other type": (api(parameter(TEXT)), api(parameter(COUNT)), f"{HERE}, query limit: string is refused"),
    "number to integer": (
        api(parameter({"type": "number"})),
        api(parameter({"type": "integer"})),
        f"{HERE}, query limit: number is refused",
    ),
    "null refused": (api(parameter(NULLABLE)), api(parameter(TEXT)), f"{HERE}, query limit: null is refused"),
    "new pattern": (
        api(parameter(TEXT)),
        api(parameter({**TEXT, "pattern": "^a"})),
        f"{HERE}, query limit: pattern was not set, is ^a",
    ),
    "choice gone": (
        api(parameter({**TEXT, "enum": ["a", "b"]})),
        api(parameter({**TEXT, "const": "a"})),
        f"{HERE}, query limit: 'b' is refused",
    ),
    "choices now": (
        api(parameter(TEXT)),
        api(parameter({**TEXT, "enum": ["a"]})),
        f"{HERE}, query limit: a value other than 'a' is refused",
    ),
    "body required now": (api(), api(body=ITEM), f"{HERE}, body: is required"),
    "property required": (api(body=ITEM), api(body=with_(TEXT, True)), f"{HERE}, body.price: is required"),
    "property of a body gone": (api(body=ITEM), api(body=without("note")), f"{HERE}, body.note: is gone"),
    "in a list": (
        api(body={"type": "array", "items": TEXT}),
        api(body={"type": "array", "items": COUNT}),
        f"{HERE}, body[]: string is refused",
    ),
    "behind a reference": (
        api(body={"$ref": "#/components/schemas/Item"}),
        api(body=without("name")),
        f"{HERE}, body.name: is gone",
    ),
    "property of a response gone": (api(), api(answer=without("note")), f"{HERE}, 200.note: is missing"),
    "response may be null": (
        api(),
        api(answer={"anyOf": [ITEM, {"type": "null"}]}),
        f"{HERE}, 200: null is new to clients",
    ),
    "new choice in a response": (
        api(answer={**TEXT, "enum": ["a"]}),
        api(answer={**TEXT, "enum": ["a", "b"]}),
        f"{HERE}, 200: 'b' is new to clients",
    ),
    "status gone": (api(), api(responses={"202": {}}), f"{HERE}, 200: is gone"),
    "media type gone": (
        api(),
        api(responses={"200": {"content": {"text/csv": {}}}}),
        f"{HERE}, 200: application/json is gone",
    ),
}
HARMLESS: dict[str, tuple[Schema, Schema]] = {
    "nothing": (api(parameter(), body=ITEM), api(parameter(), body=ITEM)),
    "new operation": ({"paths": {}}, api()),
    "new parameter": (api(), api(parameter())),
    "wider limits": (api(parameter()), api(parameter({**COUNT, "maximum": 500, "minimum": 0}))),
    "integer to number": (api(parameter({"type": "integer"})), api(parameter({"type": "number"}))),
    "null allowed": (api(parameter(TEXT)), api(parameter(NULLABLE))),
    "new choice": (
        api(parameter({**TEXT, "enum": ["a"]})),
        api(parameter({**TEXT, "enum": ["a", "b"]})),
    ),
    "new property of a body": (api(body=ITEM), api(body=with_(TEXT, False))),
    "new property of a response": (api(), api(answer=with_(TEXT, True))),
    "response never null now": (api(answer=NULLABLE), api(answer=TEXT)),
    "a failure gone": (api(), api(responses={"200": content(ITEM)})),
    "recursive": (
        api(body={"$ref": "#/components/schemas/Tree"}),
        api(body={"$ref": "#/components/schemas/Tree"}),
    ),
    "deprecated operation gone": (api(deprecated=True), {"paths": {}}),
    "deprecated parameter gone": (api(parameter(deprecated=True)), api()),
    "deprecated property gone": (
        api(answer={**ITEM, "properties": {**ITEM["properties"], "note": {**TEXT, "deprecated": True}}}),
        api(answer=without("note")),
    ),
    "its name alone": (api(summary="a"), api(summary="b")),
}


@pytest.mark.parametrize(("old", "new", "said"), BREAKING.values(), ids=BREAKING)
def test_a_change_that_breaks_clients_is_named(old: Schema, new: Schema, said: str) -> None:
    assert said in changes.breaking(old, new)


@pytest.mark.parametrize(("old", "new"), HARMLESS.values(), ids=HARMLESS)
def test_a_change_that_breaks_nobody_is_not(old: Schema, new: Schema) -> None:
    assert changes.breaking(old, new) == []
