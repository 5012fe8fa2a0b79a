"""Finds the changes between two OpenAPI descriptions that break clients.

A request that was right has to stay right: what clients may send must fit what is accepted now. A response has to stay
readable: what is sent now must fit what clients expect. So one question is asked in both directions: does each value of
one schema fit another schema? What was marked as deprecated may go.
"""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
METHODS = ("delete", "get", "head", "options", "patch", "post", "put", "trace")
LOWEST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
HIGHEST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
SAME = ("format", "multipleOf", "pattern", "uniqueItems")
TYPES = {"array", "boolean", "integer", "null", "number", "object", "string"}


class Comparison:
    """Whether values of schemas of one description fit schemas of another one."""

    def __init__(self, given: Schema, wanted: Schema, request: bool) -> None:
        """Compare: in a request, a property that nobody reads any more is a change, too."""
        self.given, self.wanted, self.request = given, wanted, request
        self.verdict = "is refused" if request else "is new to clients"
        self.compared: set[tuple[int, int]] = set()

    def misfits(self, a: Any, b: Any, where: str) -> Iterator[str]:
        """Why a value of schema `a` may not fit schema `b`."""
        a, b = ({} if each is True else each for each in (a, b))
        a, b = resolved(self.given, a), resolved(self.wanted, b)
        pair = (id(a), id(b))
        if pair in self.compared:
            return  # a schema that contains itself
        self.compared.add(pair)
        yield from self.branches(a, b, where)
        self.compared.remove(pair)

    def branches(self, a: Schema, b: Schema, where: str) -> Iterator[str]:
        """What alternatives say: each one of `a` has to fit, and one of `b` is enough."""
        if several := a.get("anyOf") or a.get("oneOf"):
            for each in several:
                yield from self.misfits(each, b, where)
        elif several := b.get("anyOf") or b.get("oneOf"):
            reasons = [list(self.misfits(a, each, where)) for each in several]
            if all(reasons):
                yield from min(reasons, key=len)
        else:
            yield from self.values(a, b, where)
            yield from self.parts(a, b, where)

    def values(self, a: Schema, b: Schema, where: str) -> Iterator[str]:
        """What types, choices and limits say."""
        extra = types(a) - types(b) - ({"integer"} if "number" in types(b) else set())
        if extra:
            yield f"{where}: {' or '.join(sorted(extra))} {self.verdict}"
        if (choices := allowed(b)) is not None:
            known = allowed(a)
            if known is None:
                yield f"{where}: a value other than {', '.join(map(repr, choices))} {self.verdict}"
            yield from (f"{where}: {each!r} {self.verdict}" for each in known or [] if each not in choices)
        for name, sign in (*((name, 1) for name in LOWEST), *((name, -1) for name in HIGHEST)):
            if name in b and (name not in a or sign * a[name] < sign * b[name]):
                yield self.changed(a, b, name, where)
        yield from (self.changed(a, b, name, where) for name in SAME if name in b and a.get(name) != b[name])

    def changed(self, a: Schema, b: Schema, name: str, where: str) -> str:
        """Say what a keyword was, and what it is."""
        old, new = (a, b) if self.request else (b, a)
        return f"{where}: {name} was {old.get(name, 'not set')}, is {new.get(name, 'not set')}"

    def parts(self, a: Schema, b: Schema, where: str) -> Iterator[str]:
        """What properties and items say."""
        mine, theirs = a.get("properties", {}), b.get("properties", {})
        for name in b.get("required", ()):
            if name not in a.get("required", ()) and not theirs.get(name, {}).get("deprecated"):
                yield f"{where}.{name}: is {'required' if self.request else 'missing'}"
        for name in mine:
            if name in theirs:
                yield from self.misfits(mine[name], theirs[name], f"{where}.{name}")
            elif self.request and not mine[name].get("deprecated"):
                yield f"{where}.{name}: is gone"
        for name in ("items", "additionalProperties"):
            if isinstance(b.get(name), dict) and name in a:
                yield from self.misfits(a[name], b[name], f"{where}[]")


def resolved(document: Schema, schema: Schema) -> Schema:
    """What a reference stands for."""
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        schema = found
    return schema


def types(schema: Schema) -> set[str]:
    """Of which types a value may be."""
    named = schema.get("type", sorted(TYPES))
    return {named} if isinstance(named, str) else set(named)


def allowed(schema: Schema) -> list[Any] | None:
    """The values that are listed; None without a list."""
    return [schema["const"]] if "const" in schema else schema.get("enum")


def operations(document: Schema) -> dict[str, Schema]:
    """The operations by method and path, each with the parameters of its path."""
    return {
        f"{method.upper()} {path}": {**item[method], "shared": item.get("parameters", [])}
        for path, item in document.get("paths", {}).items()
        for method in METHODS
        if method in item
    }


def parameters(document: Schema, operation: Schema) -> dict[str, Schema]:
    """The parameters of an operation, by where and what they are."""
    every = [resolved(document, each) for each in (*operation["shared"], *operation.get("parameters", ()))]
    return {f"{each['in']} {each['name']}": each for each in every}


def breaking(old: Schema, new: Schema) -> list[str]:
    """The changes from `old` to `new` that break clients, one line each."""
    before, now = operations(old), operations(new)
    found: list[str] = []
    for name, operation in before.items():
        if name in now:
            found += requests(old, new, operation, now[name], name)
            found += responses(old, new, operation, now[name], name)
        elif not operation.get("deprecated"):
            found.append(f"{name}: is gone")
    return list(dict.fromkeys(found))


def requests(old: Schema, new: Schema, before: Schema, now: Schema, name: str) -> Iterator[str]:
    """What is accepted no more."""
    fit = Comparison(old, new, request=True).misfits
    had, has = parameters(old, before), parameters(new, now)
    for key, each in has.items():
        if each.get("required") and not had.get(key, {}).get("required"):
            yield f"{name}, {key}: is required"
        if key in had:
            yield from fit(had[key].get("schema", {}), each.get("schema", {}), f"{name}, {key}")
    yield from (f"{name}, {key}: is gone" for key in had.keys() - has.keys() if not had[key].get("deprecated"))
    body, body_now = resolved(old, before.get("requestBody", {})), resolved(new, now.get("requestBody", {}))
    if body_now.get("required") and not body.get("required"):
        yield f"{name}, body: is required"
    yield from contents(body, body_now, f"{name}, body", fit)


def responses(old: Schema, new: Schema, before: Schema, now: Schema, name: str) -> Iterator[str]:
    """What comes back differently from an operation that succeeds."""
    fit = Comparison(new, old, request=False).misfits
    for status, each in before.get("responses", {}).items():
        if status.startswith("2") and status not in now.get("responses", {}):
            yield f"{name}, {status}: is gone"
        elif status.startswith("2"):
            response, response_now = resolved(old, each), resolved(new, now["responses"][status])
            yield from contents(response, response_now, f"{name}, {status}", lambda a, b, at: fit(b, a, at))


def contents(before: Schema, now: Schema, where: str, fit: Any) -> Iterator[str]:
    """What differs in each media type."""
    for media, each in before.get("content", {}).items():
        if media in now.get("content", {}):
            yield from fit(each.get("schema", {}), now["content"][media].get("schema", {}), where)
        else:
            yield f"{where}: {media} is gone"
