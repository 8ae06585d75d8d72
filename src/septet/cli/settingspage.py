"""docs/configuration.md, made from the settings and from the structs of septet.yaml."""

from __future__ import annotations

import ast
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

import septet.settings
from septet.cli import project
from septet.model import function, objects

INTRODUCTION = """\
# Configuration

This page is made from the code by `scripts/generate`; a test keeps it current.

## The platform

`septet up` takes each setting as a flag; the environment variable holds where no flag is given. There is no other
reader of the environment in the platform. Where the environment names indexes, certificates and proxies for
packages (`PIP_INDEX_URL`, `NPM_CONFIG_REGISTRY`, `HTTPS_PROXY` and the like), builds get them, and their values are
blotted out of build logs.

| environment | default | meaning |
| --- | --- | --- |
"""
PROJECT = """
## septet.yaml

`septet deploy` reads it. The JSON Schema is in the package, `septet/cli/schemas/septet.schema.json`. A key that is
not known is an error that names the key, its line and the nearest right one. `${VAR}` and `${VAR:-default}` are
replaced in values, `$$` is a dollar sign. Anchors, aliases and `<<` work, within bounds.

Times are seconds as a number, or text such as `500ms`, `30s`, `5m`, `1h30m`. Memory and tmp are MiB as a number, or
text such as `256Mi`, `1Gi`. Values of `env`, `labels` and `annotations` are kept as they are written: `yes` stays
`yes`.

The source is packed without what `.septetignore` names, or, where there is none, `.gitignore`; always without
`.git`, `__pycache__`, `.venv`, `node_modules`, `.env` and `septet.yaml` itself, unless `.septetignore` brings them
back with `!`.
"""
SECTIONS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("The file", project.Project),
    ("functions.NAME", project.FunctionEntry),
    ("functions.NAME.limits", function.Limits),
    ("functions.NAME.scale", function.Scale),
    ("functions.NAME.network", function.Network),
    ("functions.NAME.readiness", function.Readiness),
    ("functions.NAME.build", function.Build),
    ("functions.NAME.secrets[]", function.SecretUse),
    ("functions.NAME.traffic[]", function.TrafficTarget),
    ("routes.NAME", project.RouteEntry),
    ("routes.NAME.targets[]", objects.RouteTarget),
)


def configuration() -> str:
    """The whole page."""
    settings = "".join(f"| `SEPTET_{name.upper()}` | {default} | {text} |\n" for name, default, text in _settings())
    return INTRODUCTION + settings + PROJECT + "".join(_section(title, struct) for title, struct in SECTIONS)


def _settings() -> Iterator[tuple[str, str, str]]:
    """(name, default as written, the docstring below the field) of each setting that the environment can give."""
    body = ast.parse(inspect.getsource(septet.settings.Settings)).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, text in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and field.value is not None):
            continue
        assert isinstance(field.target, ast.Name) and isinstance(text.value, ast.Constant)
        if field.target.id != "build_env":
            yield field.target.id, _default(ast.unparse(field.value)), " ".join(str(text.value.value).split())


def _default(source: str) -> str:
    made = re.fullmatch(r"field\(default_factory=(\w+)\)", source)
    if made:
        factory = getattr(septet.settings, made.group(1))
        return (inspect.getdoc(factory) or "").rstrip(".")
    return "" if source in ("()", "''") else f"`{source}`"


def _section(title: str, struct: type[msgspec.Struct]) -> str:
    rows = "".join(
        f"| `{field.name}` | {_type(field.type)} | {_value(field)} |\n" for field in msgspec.structs.fields(struct)
    )
    text = inspect.cleandoc(struct.__doc__ or "")
    return f"\n### {title}\n\n{text}\n\n| key | type | default |\n| --- | --- | --- |\n{rows}"


def _value(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(default, msgspec.Struct):
        return ""
    plain = msgspec.to_builtins(default, str_keys=True)
    return "" if plain in ("", [], (), {}) else f"`{msgspec.json.encode(plain).decode()}`"


def _type(shape: Any) -> str:
    """A type in words of YAML."""
    origin, arguments = typing.get_origin(shape), typing.get_args(shape)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is dict:
        return f"mapping to {_type(arguments[1])}"
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if arguments:
        return " or ".join(_type(argument) for argument in arguments)
    words = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
    return words.get(shape, "see below")
