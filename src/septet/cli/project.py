"""septet.yaml: what it may hold, and what each function in it asks of the platform."""

from __future__ import annotations

import difflib
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import msgspec

from septet.cli.failures import Exit, Failure
from septet.cli.options import parse_duration
from septet.cli.yamlfile import Document, Place, load_yaml
from septet.model.function import (
    Build,
    FunctionSpec,
    FunctionTemplate,
    Isolation,
    Limits,
    Network,
    Readiness,
    Scale,
    SecretUse,
    TrafficTarget,
)
from septet.model.objects import RouteMatch, RouteSpec, RouteTarget

FILE_NAME = "septet.yaml"


class FunctionEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One function. `source` is a folder, a file, a zip or a tar, relative to septet.yaml; empty without source."""

    runtime: Annotated[str, msgspec.Meta(description="python, node, ruby, go, exec, http or binary")]
    source: str = "./"
    handler: str = ""
    command: tuple[str, ...] = ()
    working_directory: str = ""
    environment: str = ""
    env: dict[str, str] = {}
    secrets: tuple[str | SecretUse, ...] = ()
    limits: Limits = Limits()
    scale: Scale = Scale()
    network: Network = Network()
    readiness: Readiness = Readiness()
    build: Build = Build()
    sandbox: str = ""
    isolation: Isolation = "default"
    platform: tuple[str, ...] = ()
    access: Literal["token", "public"] = "token"
    traffic: tuple[TrafficTarget, ...] = (TrafficTarget(percent=100),)
    rollout: float = 0.0
    retain: int = 10
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    def spec(self, digest: str) -> FunctionSpec:
        """The desired state, with `digest` as the uploaded source's name."""
        secrets = tuple(SecretUse(name=use) if isinstance(use, str) else use for use in self.secrets)
        shared = {name: getattr(self, name) for name in FunctionTemplate.__struct_fields__ if hasattr(self, name)}
        template = FunctionTemplate(**{**shared, "source": digest, "secrets": secrets})
        return FunctionSpec(
            template=template, traffic=self.traffic, access=self.access, rollout=self.rollout, retain=self.retain
        )


class RouteEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One route: what it matches, and either one `function` or weighted `targets`."""

    host: str = ""
    path: str = "/*"
    methods: tuple[str, ...] = ()
    function: str = ""
    targets: tuple[RouteTarget, ...] = ()
    strip: bool = False
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    def spec(self) -> RouteSpec:
        targets = self.targets or (RouteTarget(function=self.function),)
        match = RouteMatch(host=self.host, path=self.path, methods=self.methods)
        return RouteSpec(match=match, targets=targets, strip=self.strip)


class Project(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    functions: dict[str, FunctionEntry] = {}
    routes: dict[str, RouteEntry] = {}
    namespace: str = ""


@dataclass(frozen=True)
class LoadedProject:
    """A project and the folder that its sources are relative to."""

    project: Project
    folder: Path


def read_project(path: Path, env: Mapping[str, str] | None = None) -> LoadedProject:
    """Reads and checks septet.yaml. Failure(USAGE) names the key, its line, and the nearest right one."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise Failure(
            f"there is no {path}",
            hint="write one with `septet new`, or name a function: `septet deploy NAME --runtime ...`",
            code=Exit.USAGE,
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}", code=Exit.USAGE) from None
    return LoadedProject(parse_project(text, os.environ if env is None else env, str(path)), path.parent)


def parse_project(text: str, env: Mapping[str, str], name: str = FILE_NAME) -> Project:
    """The project in `text`; `name` stands in errors."""
    document = load_yaml(text, env, name)
    value = {} if document.value is None else document.value
    checker = _Checker(document, name)
    if not isinstance(value, dict):
        checker.fail((), "the file must be a mapping", "begin with `functions:`")
    checker.keys(value, Project, ())
    checker.amounts(value)
    functions = {
        key: checker.convert(entry, FunctionEntry, ("functions", key))
        for key, entry in checker.part(value, "functions")
    }
    routes = {key: checker.convert(entry, RouteEntry, ("routes", key)) for key, entry in checker.part(value, "routes")}
    for key, route in routes.items():
        if bool(route.function) == bool(route.targets):
            checker.fail(("routes", key), "names its goal twice or not at all", "give `function` or `targets`")
    namespace = value.get("namespace", "")
    if not isinstance(namespace, str):
        checker.fail(("namespace",), "must be text")
    return Project(functions=functions, routes=routes, namespace=namespace)


# Fields that take "30s" or "256Mi" beside a plain number; `*` stands for any name.
SECONDS: dict[str, tuple[str, ...]] = {
    "": ("rollout",),
    "limits": ("timeout", "start_timeout", "queue_timeout"),
    "scale": ("window", "down_delay", "grace", "keep_alive"),
    "readiness": ("period", "timeout"),
    "build": ("timeout",),
}
MEBIBYTES: dict[str, tuple[str, ...]] = {"limits": ("memory", "tmp"), "build": ("memory",)}
BYTES: dict[str, tuple[str, ...]] = {"limits": ("request_body",)}
TEXTS = ("env", "labels", "annotations")
_SIZE = re.compile(r"(\d+)(Ki|Mi|Gi|Ti)")
_FACTORS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class _Checker:
    """Finds what is wrong in a loaded file and says where."""

    def __init__(self, document: Document, name: str) -> None:
        self.document = document
        self.name = name

    def keys(self, value: Any, shape: Any, place: Place) -> None:
        """Refuses unknown keys, everywhere a struct is expected."""
        struct = next((option for option in _options(shape) if _is_struct(option)), None)
        if struct is not None and isinstance(value, dict):
            fields = {f.encode_name: f.type for f in msgspec.structs.fields(struct)}
            for key, inner in value.items():
                if key not in fields:
                    self.unknown(key, list(fields), place)
                self.keys(inner, fields[key], (*place, key))
            return
        origin, arguments = typing.get_origin(shape), typing.get_args(shape)
        if origin is dict and isinstance(value, dict):
            for key, inner in value.items():
                self.keys(inner, arguments[1], (*place, key))
        elif origin is tuple and isinstance(value, list):
            for index, inner in enumerate(value):
                self.keys(inner, arguments[0], (*place, index))

    def unknown(self, key: str, known: list[str], place: Place) -> NoReturn:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"
        where = f" in {dotted(place)}" if place else ""
        self.fail((*place, key), f"unknown key {key!r}{where}", hint, named=False)

    def part(self, value: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
        part = value.get(name)
        if not isinstance(part, dict) and part is not None:
            self.fail((name,), "must be a mapping of names")
        yield from (part or {}).items()

    def amounts(self, value: dict[str, Any]) -> None:
        """Turns durations and sizes of each function into numbers, and values of env and the like into text."""
        for part in ("functions", "routes"):
            for name, entry in self.part(value, part):
                if isinstance(entry, dict):
                    self.numbers(entry, (part, name))
                    for section in TEXTS:
                        self.texts(entry.get(section), (part, name, section))
                    if isinstance(entry.get("build"), dict):
                        self.texts(entry["build"].get("env"), (part, name, "build", "env"))

    def numbers(self, entry: dict[str, Any], place: Place) -> None:
        tables: tuple[tuple[dict[str, tuple[str, ...]], Callable[[str, Place], float]], ...] = (
            (SECONDS, self.seconds),
            (MEBIBYTES, self.mebibytes),
            (BYTES, self.bytes),
        )
        for table, convert in tables:
            for section, fields in table.items():
                holder = entry.get(section) if section else entry
                for key in fields:
                    if isinstance(holder, dict) and isinstance(holder.get(key), str) and not _is_word(key, holder[key]):
                        holder[key] = convert(holder[key], (*place, section, key) if section else (*place, key))

    def texts(self, holder: Any, place: Place) -> None:
        for key in holder if isinstance(holder, dict) else ():
            if not isinstance(holder[key], (dict, list, str)):
                holder[key] = self.document.texts.get((*place, key), str(holder[key]))

    def seconds(self, text: str, place: Place) -> float:
        try:
            return parse_duration(text)
        except Failure as failure:
            self.fail(place, failure.message, failure.hint)

    def bytes(self, text: str, place: Place) -> int:
        match = _SIZE.fullmatch(text)
        if match is None:
            self.fail(place, f"{text!r} is not a size", "use 64Mi, 1Gi or a plain number")
        return int(match.group(1)) * _FACTORS[match.group(2)]

    def mebibytes(self, text: str, place: Place) -> int:
        size = self.bytes(text, place)
        if size % 2**20:
            self.fail(place, f"{text!r} is not a whole number of MiB")
        return size // 2**20

    def convert(self, value: Any, shape: Any, place: Place) -> Any:
        """The struct; a wrong type is named with its place."""
        try:
            return msgspec.convert(value, shape)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$")
            inner = tuple(part for part in re.split(r"[.\[\]`]+", path) if part)
            self.fail((*place, *(int(part) if part.isdigit() else part for part in inner)), message)

    def fail(self, place: Place, message: str, hint: str = "", *, named: bool = True) -> NoReturn:
        line = next(
            (self.document.lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in self.document.lines), 1
        )
        where = f" {dotted(place)}:" if named and place else ""
        raise Failure(f"{self.name}:{line}:{where} {message}", hint=hint, code=Exit.USAGE)


def _is_word(key: str, text: str) -> bool:
    return key == "keep_alive" and text == "auto"


def dotted(place: Place) -> str:
    """functions.hello.secrets[0].name"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _options(shape: Any) -> tuple[Any, ...]:
    if typing.get_origin(shape) in (typing.Union, type(int | str)):
        return typing.get_args(shape)
    return (shape,)


def _is_struct(shape: Any) -> bool:
    return isinstance(shape, type) and issubclass(shape, msgspec.Struct)


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of septet.yaml, made from the structs above; `scripts/generate` writes it out."""
    made = msgspec.json.schema(Project)
    definitions = made["$defs"]
    duration = {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"}
    size = {"type": "string", "pattern": "^[0-9]+(Ki|Mi|Gi|Ti)$"}
    variable = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
    structs = {"": "FunctionEntry", "limits": "Limits", "scale": "Scale", "readiness": "Readiness", "build": "Build"}
    for table, text in ((SECONDS, duration), (MEBIBYTES, size), (BYTES, size)):
        for section, fields in table.items():
            for key in fields:
                _allow(definitions[structs[section]]["properties"], key, text)
    for definition in definitions.values():
        definition["properties"] = {
            key: _with_variable(value, variable) for key, value in definition["properties"].items()
        }
    for struct, keys in (("FunctionEntry", TEXTS), ("RouteEntry", ("labels", "annotations")), ("Build", ("env",))):
        for key in keys:
            definitions[struct]["properties"][key]["additionalProperties"] = {"type": ["string", "number", "boolean"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "septet.yaml",
        **made,
    }


def _allow(properties: dict[str, Any], key: str, text: dict[str, Any]) -> None:
    own = properties[key]
    default = {"default": own["default"]} if "default" in own else {}
    number = {name: value for name, value in own.items() if name != "default"}
    properties[key] = {"anyOf": [number, text], **default}


def _with_variable(own: dict[str, Any], variable: dict[str, Any]) -> dict[str, Any]:
    """Numbers and booleans may also be a ${VARIABLE}, which is replaced before the types are checked."""
    if own.get("type") in ("integer", "number", "boolean") or (
        own.get("anyOf") and own["anyOf"][0].get("type") in ("integer", "number")
    ):
        options = own.get("anyOf") or [{key: value for key, value in own.items() if key != "default"}]
        default = {"default": own["default"]} if "default" in own else {}
        return {"anyOf": [*options, variable], **default}
    return own
