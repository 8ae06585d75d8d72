"""Strict reading: an unknown key is named, with its place and the nearest right one."""

from __future__ import annotations

import difflib
import re
import types
import typing
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

import msgspec

from septet.apis.native.bodies import FLAT, as_nested
from septet.model.errors import InvalidInput

Shape = TypeVar("Shape")
REPEATED = ("label", "kinds")
QUERY_MOST = 100


def read_body(data: bytes, shape: type[Shape]) -> Shape:
    """The body as a struct; an empty one counts as `{}`. Raises InvalidInput."""
    try:
        raw = msgspec.json.decode(data or b"{}")
    except msgspec.DecodeError as error:
        raise InvalidInput(f"the body is no JSON: {error}", details={"field": "body"}) from None
    except RecursionError:
        raise InvalidInput("the body is nested too deep", details={"field": "body"}) from None
    if not isinstance(raw, dict):
        raise InvalidInput("the body must be a JSON object", details={"field": "body"})
    flat = FLAT.get(typing.cast("type[msgspec.Struct]", shape))
    if flat is not None and "spec" not in raw:
        return typing.cast("Shape", as_nested(_convert(raw, flat[0]), typing.cast("type[msgspec.Struct]", shape)))
    return typing.cast("Shape", _convert(raw, shape))


def _convert(raw: dict[str, Any], shape: Any) -> Any:
    check_keys(raw, shape, "")
    try:
        return msgspec.convert(raw, shape)
    except msgspec.ValidationError as error:
        _invalid(error)
    except RecursionError:
        raise InvalidInput("the body is nested too deep", details={"field": "body"}) from None


def read_query(query: bytes, shape: type[Shape]) -> Shape:
    """Query parameters as a struct; only `label` and `kinds` may be repeated. Raises InvalidInput."""
    try:
        found = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_MOST)
    except ValueError:
        raise InvalidInput("the query cannot be read", details={"field": "query"}) from None
    raw: dict[str, str] = {}
    for key, value in found:
        if key in raw and key not in REPEATED:
            raise InvalidInput(f"the query names {key[:100]!r} twice", details={"field": key[:100]})
        raw[key] = f"{raw[key]},{value}" if raw.get(key) else value
    raw = {key: value for key, value in raw.items() if value != ""} if _known(raw, shape) else raw
    check_keys(raw, shape, "", "query parameter")
    try:
        return msgspec.convert(raw, shape, strict=False)
    except msgspec.ValidationError as error:
        _invalid(error)


def _known(raw: dict[str, str], shape: Any) -> bool:
    """Empty parameters count as left out, but only known ones."""
    return all(key in shape.__struct_fields__ for key in raw)


def read_labels(text: str) -> dict[str, str]:
    """`a=b,c=d` as a mapping. Raises InvalidInput."""
    labels: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise InvalidInput(
                f"label: {pair[:100]!r} is not KEY=VALUE",
                hint="for example ?label=team=search",
                details={"field": "label"},
            )
        labels[key] = value
    return labels


def check_keys(value: Any, shape: Any, place: str, what: str = "key") -> None:
    """Refuses unknown keys wherever a struct is expected."""
    struct = next((option for option in _options(shape) if _is_struct(option)), None)
    if struct is not None and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
        for key, inner in value.items():
            if key not in fields:
                _unknown(str(key), list(fields), place, what)
            check_keys(inner, fields[key], f"{place}.{key}" if place else str(key))
        return
    for option in _options(shape):
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin is dict and isinstance(value, dict):
            for key, inner in value.items():
                check_keys(inner, arguments[1], f"{place}.{key}")
        elif origin is tuple and isinstance(value, list):
            for index, inner in enumerate(value):
                check_keys(inner, arguments[0], f"{place}[{index}]")


def _unknown(key: str, known: list[str], place: str, what: str) -> NoReturn:
    near = difflib.get_close_matches(key, known, n=1)
    where = f" in {place}" if place else ""
    if not known:
        hint = "there are none here"
    else:
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"
    field = f"{place}.{key[:100]}" if place else key[:100]
    raise InvalidInput(f"unknown {what} {key[:100]!r}{where}", hint=hint, details={"field": field})


def _invalid(error: msgspec.ValidationError) -> NoReturn:
    """msgspec's message names types and the place, never a value that was sent, save for a bad word of a choice."""
    message, _, path = str(error).partition(" - at `")
    field = re.sub(r"^\$\.?", "", path.rstrip("`"))
    if message.startswith("Invalid enum value"):
        message = "this is none of the words that are allowed here"
    raise InvalidInput(f"{field}: {message}" if field else message, details={"field": field}) from None


def _options(shape: Any) -> tuple[Any, ...]:
    if typing.get_origin(shape) in (typing.Union, types.UnionType):
        return typing.get_args(shape)
    return (shape,)


def _is_struct(shape: Any) -> bool:
    return isinstance(shape, type) and issubclass(shape, msgspec.Struct)
