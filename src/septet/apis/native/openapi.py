"""The OpenAPI 3.1 document, made from the table."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from septet.apis.native.bodies import FLAT
from septet.apis.native.row import Row
from septet.apis.native.table import ROWS
from septet.wire.problem import STATUS, Problem

TITLES = {
    "json": "application/json",
    "lines": "application/x-ndjson",
    "text": "text/plain",
    "bytes": "application/x-tar",
}
_PARAMETER = re.compile(r"\{(\w+)\}")
_REF = "#/components/schemas/{name}"
_WORDS = {
    "ns": "The namespace.",
    "name": "The object's name.",
    "revision": "The revision's name.",
    "id": "32 hex digits.",
    "digest": "sha256: and 64 hex digits.",
}


def document(version: str) -> dict[str, Any]:
    """The whole document."""
    shapes = _shapes()
    schemas, components = msgspec.json.schema_components(shapes, ref_template=_REF, schema_hook=_anything)
    known = dict(zip(map(_key, shapes), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for row in ROWS:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Septet",
            "version": version,
            "description": "Deploy functions, call them, watch them scale. Calls go to /fn/<namespace>/<function>/.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "sept_..."}},
        },
        "security": [{"token": []}],
    }


def _anything(shape: type) -> dict[str, Any]:
    """The schema of `object`, and of an opaque document: any JSON value."""
    if shape in (object, msgspec.Raw):
        return {"description": "Any JSON value."}
    raise TypeError(f"{shape} has no schema; give it one here")


def _key(shape: Any) -> str:
    return repr(shape)


def _shapes() -> list[Any]:
    """Every type that a request or an answer has, once."""
    found: dict[str, Any] = {_key(Problem): Problem}
    for row in ROWS:
        wanted = [
            row.answer,
            *([row.body] if row.body else []),
            *(field.type for field in msgspec.structs.fields(row.query)),
        ]
        wanted += [FLAT[row.body][0]] if row.body in FLAT else []
        for shape in wanted:
            if shape is not bytes:
                found.setdefault(_key(shape), shape)
    return list(found.values())


def _operation(row: Row, known: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": _operation_id(row),
        "summary": row.description,
        "tags": [_tag(row.path)],
        "responses": {str(row.status): _answer(row, known), **_problems(row, known)},
    }
    parameters = [_path_parameter(name) for name in _PARAMETER.findall(row.path)] + _query_parameters(row, known)
    if row.method in ("PUT", "DELETE") and row.command is not None:
        parameters.append(_if_match())
    if parameters:
        made["parameters"] = parameters
    if row.upload:
        content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        made["requestBody"] = {"required": True, "content": content}
    elif row.body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": _body(row, known)}}}
    if row.rule == "open":
        made["security"] = []
    elif row.command is not None:
        made["x-septet-verb"] = row.command.verb
    return made


def _operation_id(row: Row) -> str:
    """`PUT /septet/v1/namespaces/{ns}/functions/{name}` -> put_namespaces_ns_functions_name"""
    words = re.sub(r"[^a-z0-9]+", "_", row.path.removeprefix("/septet/v1").lower()).strip("_")
    return f"{row.method.lower()}_{words}"


def _tag(path: str) -> str:
    rest = path.removeprefix("/septet/v1/").split("/")
    return rest[2] if rest[0] == "namespaces" and len(rest) > 2 else rest[0].strip("/") or "platform"


def _body(row: Row, known: dict[str, Any]) -> Any:
    if row.body not in FLAT:
        return known[_key(row.body)]
    return {"anyOf": [known[_key(row.body)], known[_key(FLAT[row.body][0])]]}


def _answer(row: Row, known: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary"} if row.answer is bytes else known[_key(row.answer)]
    # A stream is many values; the schema is each line's, and no tool may take the whole for one value.
    content = {"x-septet-line": schema} if row.form == "lines" else {"schema": schema}
    return {"description": row.description, "content": {TITLES[row.form]: content}}


def _problems(row: Row, known: dict[str, Any]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": known[_key(Problem)]}}
    statuses = sorted({*STATUS.values(), 412} - {499})
    if row.path == "/readyz":
        return {
            "503": {"description": "Not ready.", "content": {"application/json": {"schema": known[_key(row.answer)]}}}
        }
    if row.rule == "open":
        return {}
    return {str(status): {"description": "A problem (RFC 9457).", "content": content} for status in statuses}


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": _WORDS[name], "schema": schema}


def _query_parameters(row: Row, known: dict[str, Any]) -> list[dict[str, Any]]:
    made = []
    for field in msgspec.structs.fields(row.query):
        schema = dict(known[_key(field.type)])
        if "anyOf" in schema:
            schema = next(dict(option) for option in schema["anyOf"] if option.get("type") != "null")
        if field.default is not None:
            schema["default"] = field.default
        made.append({"name": field.name, "in": "query", "schema": schema})
    return made


def _if_match() -> dict[str, Any]:
    words = "The ETag of the object that the change is meant for; 412 when it has moved on."
    schema = {"type": "string", "pattern": '^"[0-9]{1,18}"$'}
    return {"name": "If-Match", "in": "header", "description": words, "schema": schema}
