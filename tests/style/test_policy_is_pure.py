"""Each policy module decides by its arguments alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

POLICY = Path(__file__).parents[2] / "src" / "septet" / "policy"
ALLOWED = {
    "__future__",
    "bisect",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "math",
    "msgspec",
    "re",
    "typing",
    "urllib.parse",
}
OURS = ("septet.model", "septet.policy")
IMPURE_CALLS = {"open", "print", "input", "id", "hash", "exec", "eval", "__import__", "globals"}


def impurities(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "."] if not node.level else ["."]
        for name in names:
            if name not in ALLOWED and not any(name == own or name.startswith(own + ".") for own in OURS):
                yield f"imports {name}"
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield "waits"
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield "keeps state outside its memory"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield f"calls {node.func.id}"


@pytest.mark.parametrize("path", sorted(POLICY.glob("*.py")), ids=lambda path: path.stem)
def test_policy_is_pure(path: Path) -> None:
    assert list(impurities(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import time", "imports time"),
        ("from random import random", "imports random"),
        ("import logging", "imports logging"),
        ("import os.path", "imports os.path"),
        ("from septet.ports.clock import Clock", "imports septet.ports.clock"),
        ("from septet.modelling import x", "imports septet.modelling"),
        ("from . import retry", "imports ."),
        ("async def decide(): ...", "waits"),
        ("def f():\n    global memory\n    memory = 1", "keeps state outside its memory"),
        ("open('x')", "calls open"),
        ("print(1)", "calls print"),
        ("hash('x')", "calls hash"),
    ],
)
def test_impurity_is_found(code: str, said: str) -> None:
    assert said in list(impurities(ast.parse(code)))
