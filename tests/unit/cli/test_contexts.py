"""Contexts: who is talked to, and a file that only its owner reads."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from septet.cli.contexts import DEFAULT_URL, Context, Contexts, choose_context, load_contexts, save_contexts
from septet.cli.failures import Failure


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("URL", "TOKEN", "CA", "NAMESPACE", "CONTEXT"):
        monkeypatch.delenv(f"SEPTET_{name}", raising=False)
    path = tmp_path / "deep" / "contexts.json"
    monkeypatch.setenv("SEPTET_CONFIG", str(path))
    return path


def test_the_file_is_private_and_round_trips(config: Path) -> None:
    known = Contexts("a", {"a": Context(url="http://a", token="t"), "b": Context(url="http://b", namespace="n")})
    save_contexts(known)
    assert load_contexts() == known
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert [p.name for p in config.parent.iterdir()] == ["contexts.json"]


def test_who_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_context() == Context(url=DEFAULT_URL)
    save_contexts(Contexts("a", {"a": Context(url="http://a", token="ta"), "b": Context(url="http://b", token="tb")}))
    assert choose_context().url == "http://a"
    monkeypatch.setenv("SEPTET_CONTEXT", "b")
    assert choose_context() == Context(url="http://b", token="tb")
    monkeypatch.delenv("SEPTET_CONTEXT")
    monkeypatch.setenv("SEPTET_URL", "http://c")
    assert choose_context() == Context(url="http://c"), "a context's token must not go to another address"
    assert choose_context("b").url == "http://b"
    monkeypatch.setenv("SEPTET_NAMESPACE", "n")
    assert choose_context().namespace == "n"


def test_unknown_and_damaged(config: Path) -> None:
    with pytest.raises(Failure, match="no context 'x'"):
        choose_context("x")
    config.parent.mkdir()
    for text in ("{", "[]", '{"contexts": {"a": {"nope": 1}}}', '{"contexts": []}'):
        config.write_text(text)
        with pytest.raises(Failure, match="damaged"):
            load_contexts()


def test_the_verb(septet: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sept_x\n")
    assert septet("context", "set", "prod").code == 2
    assert septet("context", "set", "prod", "--url", "https://h", "--token-file", str(tmp_path / "token")).code == 0
    assert septet("context", "set", "dev", "--url", "http://d").code == 0
    listed = septet("context", "list", "-o", "json")
    assert "sept_x" not in listed.out
    assert {item["name"]: item["current"] for item in json.loads(listed.out)} == {"prod": True, "dev": False}
    assert septet("context", "use", "dev").code == 0 and load_contexts().current == "dev"
    assert septet("context", "use", "nope").code == 3
    assert septet("context", "delete", "dev").code == 0 and load_contexts().current == ""
    assert load_contexts().contexts["prod"].token == "sept_x"
