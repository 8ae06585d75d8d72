"""Watches and logs as lines, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from asgi_client import AsgiClient
from service_world import NOW, World, instance

from septet.model.invocation import InvocationRecord
from septet.ports.logs import LogLine
from septet.ports.store import Change
from septet.service import commands as c

LOGS = "/septet/v1/namespaces/default/functions/hello/logs"


def line(text: str, at: float = NOW, **more: str) -> LogLine:
    facts = {"revision": "hello-00001", "instance": "i1", **more}
    return LogLine(at=at, namespace="default", function="hello", stream="stdout", text=text, **facts)


async def test_changes_come_as_lines_without_secrets(api: AsgiClient, world: World) -> None:
    version = await world.store.version()
    await world.function("before")
    answer, task, hang_up = api.start("GET", f"/septet/v1/watch?after={version}")
    await api.until(answer, lambda a: len(a.lines) == 1)
    await world.run(c.ApplySecret(namespace="default", name="db", data={"k": b"canary-value"}))
    await world.run(
        c.CreateToken(name="t", namespaces=("default",), verbs=("functions:read",), description="for a test")
    )
    await world.run(c.DeleteFunction(namespace="default", name="before"))
    await api.until(answer, lambda a: len(a.lines) == 4)
    hang_up.set()
    await asyncio.wait_for(task, 5)
    kinds = [(change["type"], change["kind"], change["object"]["meta"]["name"]) for change in answer.lines]
    assert kinds == [
        ("put", "Function", "before"),
        ("put", "Secret", "db"),
        ("put", "Token", "t"),
        ("delete", "Function", "before"),
    ]
    assert answer.lines[1]["object"]["keys"] == ["k"]
    assert "sha256" not in answer.lines[2]["object"]["spec"]
    assert b"sealed" not in answer.body


async def test_a_watch_shows_only_what_the_caller_may_read(api: AsgiClient, world: World) -> None:
    """After CVE-2026-49822: an empty or foreign namespace of a watch showed everybody's events."""
    await world.namespace("other")
    token = await world.token("watcher", ("default",), ("changes:read", "functions:read"))
    for query in ("", "?namespace=other", "?namespace=*", "?namespace=%00", "?namespace="):
        assert (await api.call("GET", f"/septet/v1/watch{query}", token=token)).status == 403, query
    version = await world.store.version()
    answer, task, hang_up = api.start("GET", f"/septet/v1/watch?namespace=default&after={version}", token=token)
    await world.function("theirs", namespace="other")
    await world.run(c.ApplySecret(namespace="default", name="db", data={"k": b"v"}))
    await world.function("mine")
    await api.until(answer, lambda a: a.lines)
    hang_up.set()
    await asyncio.wait_for(task, 5)
    assert [change["object"]["meta"]["name"] for change in answer.lines] == ["mine"]


async def test_a_watch_of_kinds(api: AsgiClient, world: World) -> None:
    assert (await api.call("GET", "/septet/v1/watch?kinds=Functions")).status == 400
    version = await world.store.version()
    answer, task, hang_up = api.start("GET", f"/septet/v1/watch?kinds=Namespace,Function&after={version}")
    await world.namespace("n")
    await world.function("f")
    await api.until(answer, lambda a: len(a.lines) == 2)
    hang_up.set()
    await asyncio.wait_for(task, 5)
    assert [change["kind"] for change in answer.lines] == ["Namespace", "Function"]


async def test_silence_is_kept_alive_with_empty_lines(api: AsgiClient) -> None:
    answer, task, hang_up = api.start("GET", "/septet/v1/watch")
    await api.until(answer, lambda a: a.body.count(b"\n") >= 2)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.lines == []
    hang_up.set()
    await asyncio.wait_for(task, 5)


async def test_instances_are_watched(api: AsgiClient, world: World) -> None:
    world.fleet.running.append(instance("i1", "default", "hello", "hello-00001"))
    answer, task, hang_up = api.start("GET", "/septet/v1/instances/watch?namespace=default&function=hello")
    await api.until(answer, lambda a: len(a.lines) == 1)
    world.fleet.tell(instance("i2", "other", "hello", "hello-00001"))
    world.fleet.tell(instance("i1", "default", "hello", "hello-00001", "stopped"))
    await api.until(answer, lambda a: len(a.lines) == 2)
    hang_up.set()
    await asyncio.wait_for(task, 5)
    assert [change["instance"]["state"] for change in answer.lines] == ["ready", "stopped"]


async def test_logs_are_read_and_followed(api: AsgiClient, world: World) -> None:
    assert (await api.call("GET", LOGS)).status == 404
    await world.function()
    for number in range(3):
        world.logs.write(line(f"line {number}", NOW + number))
    await asyncio.sleep(0.3)
    got = await api.call("GET", f"{LOGS}?tail=2")
    assert [item["text"] for item in got.lines] == ["line 1", "line 2"]
    got = await api.call("GET", f"{LOGS}?instance=other")
    assert got.lines == []
    answer, task, hang_up = api.start("GET", f"{LOGS}?follow=true&tail=1")
    await api.until(answer, lambda a: a.lines)
    world.logs.write(line("from another", NOW + 9, instance="i9"))
    world.logs.write(line("new", NOW + 10))
    await api.until(answer, lambda a: len(a.lines) == 3)
    hang_up.set()
    await asyncio.wait_for(task, 5)
    assert [item["text"] for item in answer.lines] == ["line 2", "from another", "new"]


async def test_invocations(api: AsgiClient, world: World) -> None:
    await world.function()
    world.logs.record(InvocationRecord(id="a" * 32, namespace="default", function="hello", status=200))
    await asyncio.sleep(0.3)
    got = await api.call("GET", "/septet/v1/namespaces/default/functions/hello/invocations")
    assert [item["id"] for item in got.json["items"]] == ["a" * 32]
    one = await api.call("GET", f"/septet/v1/namespaces/default/invocations/{'a' * 32}")
    assert one.json["status"] == 200
    await world.namespace("other")
    assert (await api.call("GET", f"/septet/v1/namespaces/other/invocations/{'a' * 32}")).status == 404
    assert (await api.call("GET", "/septet/v1/namespaces/default/invocations/xyz")).status == 400


async def test_a_token_that_is_taken_back_ends_the_watch_it_opened(api: AsgiClient, world: World) -> None:
    token = await world.token("watcher", ("*",), ("changes:read", "functions:read"))
    answer, task, _ = api.start("GET", "/septet/v1/watch", token=token)
    await api.until(answer, lambda a: a.status)
    await world.run(c.DeleteToken(name="watcher"))
    await world.function("unseen")
    await asyncio.wait_for(task, 5)
    assert answer.lines == [{"error": answer.lines[0]["error"]}]
    assert answer.lines[0]["error"]["type"] == "urn:septet:error:unauthenticated"


async def test_an_expired_position_is_an_answer_and_not_a_line(world: World, api: AsgiClient) -> None:
    from septet.model.errors import Expired

    async def watch(after: int, kinds: object = None) -> AsyncIterator[Change]:
        raise Expired("gone")
        yield

    world.store.watch = watch  # type: ignore[method-assign]
    got = await api.call("GET", "/septet/v1/watch?after=1")
    assert (got.status, got.json["type"]) == (410, "urn:septet:error:expired")


async def test_a_build_is_followed_before_its_log_is_kept(api: AsgiClient, world: World) -> None:
    function = await world.function()
    await world.revision(function, 1, "building")
    world.logs.write(line("installing", instance="build"))
    world.logs.write(line("something else"))
    await asyncio.sleep(0.3)
    got = await api.call("GET", "/septet/v1/namespaces/default/functions/hello/revisions/hello-00001/build-log")
    assert got.body == b"installing\n"
