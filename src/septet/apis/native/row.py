"""One operation of the API as data, and how a request becomes a command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, NamedTuple

from septet.apis.native import bodies as b
from septet.apis.native.strict import read_labels
from septet.service import commands as c

Rule = Literal["token", "any token", "open"]
Form = Literal["json", "lines", "text", "bytes"]


class Parts(NamedTuple):
    """A request, read: path parameters decoded, query and body as their structs, the version that If-Match or
    the body names (0: none), and the raw body for uploads."""

    path: dict[str, str]
    query: Any
    body: Any
    version: int
    chunks: AsyncIterator[bytes]


class Row(NamedTuple):
    """One operation. `rule` "token" means that the command's own verb is asked for; "any token" that any valid one
    will do; "open" that none is needed. `namespace` names the path or query parameter that the verb is held in."""

    method: str
    path: str
    description: str
    rule: Rule
    command: type[c.Command[Any]] | None
    build: Callable[[Parts], c.Command[Any]] | None
    answer: Any
    body: Any = None
    query: type[b.Query] = b.Query
    form: Form = "json"
    status: int = 200
    upload: bool = False


NS = "/septet/v1/namespaces/{ns}"
V1 = "/septet/v1"


def operation(
    method: str, path: str, description: str, command: type[c.Command[Any]], build: Any, answer: Any, **more: Any
) -> Row:
    return Row(method, path, description, "token", command, build, answer, **more)


def in_namespace(p: Parts) -> dict[str, Any]:
    return {"namespace": p.path["ns"]}


def named(p: Parts) -> dict[str, Any]:
    return {"namespace": p.path["ns"], "name": p.path["name"]}


def metadata(p: Parts) -> dict[str, Any]:
    return {
        "labels": p.body.labels,
        "annotations": p.body.annotations,
        "resource_version": p.version,
        "dry_run": p.query.dry_run,
    }


def page(p: Parts) -> dict[str, Any]:
    return {"limit": p.query.limit, "cursor": p.query.cursor}


def listed(p: Parts) -> dict[str, Any]:
    return {**in_namespace(p), **page(p), "labels": read_labels(p.query.label)}
