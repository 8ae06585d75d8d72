"""Functions that nothing is left to be done for: read when they are called, and changed as any other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from septet_platform import Platform

from septet.drivers.clock.system import SystemClock
from septet.drivers.store.sqlite.store import SqliteStore
from septet.ports.store import Family


def says(text: str) -> dict[str, str]:
    return {"main.py": f"def handle(request, context):\n    return {text!r}\n"}


def settle(platform: Platform, names: Sequence[str]) -> None:
    """What the collector would have done in its next pass."""

    async def run() -> None:
        store = SqliteStore(platform.data / "store.db", SystemClock())
        try:
            families = [store.family("Function", "default", name) for name in names]
            assert await store.settle([cast("Family", family) for family in families]) == [
                ("default", name) for name in names
            ]
            assert await store.unsettled() == ([], await store.version())
        finally:
            await store.close()

    asyncio.run(run())


def test_functions_at_rest_are_called_changed_and_deleted_across_kills(own_platform: Platform) -> None:
    platform = own_platform.start()
    names = ["called", "changed", "gone", "killed"]
    for name in names:
        platform.deploy(name, says(name))
    platform.kill()
    settle(platform, names)
    platform.start()
    assert platform.call("called").text == "called"
    assert platform.call("nobody").status == 404
    items = platform.api("GET", "/namespaces/default/functions?limit=10")["items"]
    assert [item["meta"]["name"] for item in items] == names
    platform.deploy("changed", says("anew"))
    assert platform.call("changed").text == "anew"
    platform.api("DELETE", "/namespaces/default/functions/gone")
    assert platform.call("gone").status == 404
    try:
        platform.apply("killed", says("after"))
    finally:
        platform.kill()
    platform.start()
    for name, text in (("called", "called"), ("changed", "anew")):
        assert platform.call(name).text == text
    platform.wait_ready("killed")
    assert platform.call("killed").text == "after"
    assert platform.call("gone").status == 404
    assert platform.stop() == 0
