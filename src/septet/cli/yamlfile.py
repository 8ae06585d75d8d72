"""Reading YAML that a stranger may have written: bounded in depth, size and aliases, with ${VAR} replaced.

The answer keeps for every value the line it stood on, and for scalars the text as it was written, so that an
error can say where, and `FLAG: yes` can stay "yes" where text is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from septet.cli.failures import Exit, Failure

DEPTH_MAX = 20
VALUES_MAX = 10_000
BYTES_MAX = 1024 * 1024

Place = tuple[str | int, ...]
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})")


@dataclass
class Document:
    """A loaded file. `lines` counts from 1; `texts` has the scalars as written, after substitution."""

    value: Any
    lines: dict[Place, int] = field(default_factory=dict)
    texts: dict[Place, str] = field(default_factory=dict)


def load_yaml(text: str, env: Mapping[str, str], name: str) -> Document:
    """Parses one document. `env` fills ${VAR}; `name` is the file's name for errors. Failure(USAGE) when bad."""
    if len(text) > BYTES_MAX:
        raise Failure(f"{name} is larger than {BYTES_MAX} bytes", code=Exit.USAGE)
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        return _Reader(loader, env, name).read(loader.get_single_node())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise Failure(f"{where}: {error.problem}", hint="this is not YAML", code=Exit.USAGE) from None
    except yaml.YAMLError as error:
        raise Failure(f"{name}: {str(error).splitlines()[0]}", hint="this is not YAML", code=Exit.USAGE) from None
    except RecursionError:
        raise Failure(f"{name}: nested deeper than {DEPTH_MAX}", code=Exit.USAGE) from None
    finally:
        if loader is not None:
            loader.dispose()


class _Reader:
    """Turns nodes into values; an alias counts each time it is used, so that a bomb ends at VALUES_MAX."""

    def __init__(self, loader: yaml.SafeLoader, env: Mapping[str, str], name: str) -> None:
        self.loader = loader
        self.env = env
        self.name = name
        self.count = 0
        self.document = Document(None)

    def read(self, root: yaml.Node | None) -> Document:
        if root is not None:
            self.document.value = self.build(root, ())
        return self.document

    def build(self, node: yaml.Node, place: Place) -> Any:
        self.count += 1
        if self.count > VALUES_MAX:
            self.fail(node, f"more than {VALUES_MAX} values (aliases count each time)")
        if len(place) > DEPTH_MAX:
            self.fail(node, f"nested deeper than {DEPTH_MAX}")
        self.document.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*place, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self.scalar(node, place)

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.fail(key_node, "a key must be plain text")
            key = str(key_node.value)
            if key_node.tag.endswith(":merge"):
                merged = {**self.merge(value_node, place), **merged}
                continue
            if key in own:
                self.fail(key_node, f"{key!r} stands here twice")
            own[key] = self.build(value_node, (*place, key))
            self.document.lines[(*place, key)] = key_node.start_mark.line + 1
        return {**merged, **own}

    def merge(self, node: yaml.Node, place: Place) -> dict[str, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in sources:
            value = self.build(source, place)
            if not isinstance(value, dict):
                self.fail(source, "<< wants a mapping")
            merged = {**value, **merged}
        return merged

    def scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text = self.substitute(node)
        tag = node.tag
        if node.style is None and text != node.value:
            tag = self.loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        self.document.texts[place] = text
        kind = tag.rsplit(":", 1)[-1]
        if kind not in ("str", "int", "float", "bool", "null", "timestamp"):
            self.fail(node, f"tag {tag!r} is not allowed")
        if kind in ("str", "timestamp"):
            return text
        try:
            return self.loader.construct_object(yaml.ScalarNode(tag, text, node.start_mark, node.end_mark))
        except (ValueError, KeyError):
            self.fail(node, f"{text!r} is not of type {kind}")

    def substitute(self, node: yaml.ScalarNode) -> str:
        def replace(match: re.Match[str]) -> str:
            variable, default = match.group(1), match.group(2)
            if variable is None:
                return "$"
            if value := self.env.get(variable):
                return value
            if default is not None:
                return default
            if variable not in self.env:
                self.fail(node, f"variable {variable} is not set", hint=f"set it, or write ${{{variable}:-default}}")
            return ""

        return _VARIABLE.sub(replace, node.value)

    def fail(self, node: yaml.Node, message: str, hint: str = "") -> NoReturn:
        mark = node.start_mark
        raise Failure(f"{self.name}:{mark.line + 1}: {message}", hint=hint, code=Exit.USAGE)
