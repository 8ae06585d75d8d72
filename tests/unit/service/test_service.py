"""The command set as a whole: complete, checked, audited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from service_world import World

from septet.model.access import ANONYMOUS, Caller
from septet.model.errors import Conflict, Forbidden, InvalidInput, NotFound, QuotaExceeded, Unauthenticated
from septet.model.function import Build, FunctionSpec, FunctionTemplate
from septet.model.meta import Meta
from septet.model.objects import NamespaceSpec, Quota, RouteMatch, RouteSpec, RouteTarget, Token, TokenSpec
from septet.service import commands as c
from septet.service.handlers import HANDLERS

DEV = Caller(name="dev", namespaces=("default",), verbs=("functions:*",), remote="192.0.2.1")
APPLY = c.ApplyFunction(
    namespace="default", name="hello", spec=FunctionSpec(template=FunctionTemplate(runtime="python"))
)


def all_commands() -> list[type[c.Command[Any]]]:
    found = [cls for cls in vars(c).values() if isinstance(cls, type) and issubclass(cls, c.Command)]
    return [cls for cls in found if cls not in (c.Command, c.Named)]


def test_every_command_has_a_handler_and_a_verb() -> None:
    assert set(all_commands()) == set(HANDLERS)
    for command in all_commands():
        resource, _, action = command.verb.partition(":")
        assert resource and action, command


def test_whatever_writes_is_audited_and_nothing_else() -> None:
    for command in all_commands():
        assert command.mutates == (command.verb.split(":")[1] in ("write", "backup")) or command is c.GetBlob


async def test_access_is_asked_for_every_command(world: World) -> None:
    with pytest.raises(Unauthenticated):
        await world.run(APPLY, ANONYMOUS)
    for namespaces, verbs in ((("other",), ("*",)), (("*",), ("functions:read",)), (("default",), ("secrets:*",))):
        with pytest.raises(Forbidden):
            await world.run(APPLY, Caller(name="x", namespaces=namespaces, verbs=verbs))
    applied = await world.run(APPLY, DEV)
    assert applied.action == "created"


async def test_an_expired_caller_is_refused_even_with_every_right(world: World) -> None:
    old = Caller(name="old", namespaces=("*",), verbs=("*",), expires_at=world.clock.wall() - 1)
    with pytest.raises(Unauthenticated):
        await world.run(APPLY, old)


async def test_the_audit_log_has_who_what_when_where_and_how_it_came_out(world: World) -> None:
    await world.run(APPLY, DEV)
    with pytest.raises(Forbidden):
        await world.run(c.ListSecrets(namespace="default"), DEV)
    with pytest.raises(NotFound):
        await world.run(c.DeleteFunction(namespace="default", name="nobody"), DEV)
    await world.run(c.GetFunction(namespace="default", name="hello"), DEV)
    entries = await world.audit()
    assert [(e["what"], e["outcome"]) for e in entries] == [
        ("DeleteFunction", "not-found"),
        ("ListSecrets", "forbidden"),
        ("ApplyFunction", "ok"),
    ]
    assert entries[2] == {
        "id": entries[2]["id"],
        "at": world.clock.wall(),
        "who": "dev",
        "what": "ApplyFunction",
        "verb": "functions:write",
        "namespace": "default",
        "name": "hello",
        "remote": "192.0.2.1",
        "outcome": "ok",
        "message": "",
    }


async def test_what_breaks_unforeseen_is_audited_without_its_words(world: World) -> None:
    async def broken(path: Path) -> None:
        raise RuntimeError("the secret is canary")

    world.store.backup = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await world.run(c.Backup())
    entry = (await world.audit())[0]
    assert (entry["outcome"], entry["message"]) == ("internal", "RuntimeError")


async def test_a_dry_run_leaves_no_audit_entry_of_a_change(world: World) -> None:
    await world.run(msgspec.structs.replace(APPLY, dry_run=True), DEV)
    assert await world.audit() == []


async def test_nothing_is_applied_into_a_namespace_that_is_not_there_or_goes(world: World) -> None:
    with pytest.raises(NotFound, match="no namespace 'nowhere'"):
        await world.run(msgspec.structs.replace(APPLY, namespace="nowhere"))
    await world.namespace("going")
    function = await world.function(namespace="going")
    held = msgspec.structs.replace(function, meta=msgspec.structs.replace(function.meta, finalizers=("test/hold",)))
    await world.store.update(held)
    deleted = await world.run(c.DeleteNamespace(name="going"))
    assert deleted.meta.deleting_since is not None
    with pytest.raises(Conflict, match="being deleted"):
        await world.run(msgspec.structs.replace(APPLY, namespace="going"))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "a\x7f", "a@b", "x" * 254, "x" * 246])
async def test_names_are_checked_at_the_edge(world: World, name: str) -> None:
    with pytest.raises(InvalidInput):
        await world.run(msgspec.structs.replace(APPLY, name=name))


async def test_readers_of_what_can_be_called_wait_for_the_side_of_the_calls(world: World) -> None:
    """What is read as ready must answer: the store may be a moment ahead of those who route calls."""
    function = await world.function("hello")
    await world.revision(function, 1)
    hello, revision = ("Function", "hello"), ("Revision", "hello-00001")
    reads: list[tuple[c.Command[Any], list[tuple[str, str]]]] = [
        (c.GetFunction(namespace="default", name="hello"), [hello]),
        (c.ListFunctions(namespace="default"), [hello]),
        (c.Summarise(namespace="default", name="hello"), [hello, revision]),
        (c.ListRevisions(namespace="default", name="hello"), [revision]),
        (c.GetRevision(namespace="default", name="hello", revision="hello-00001"), [revision]),
        (c.GetRoute(namespace="default", name="way"), [("Route", "way")]),
    ]
    way = RouteSpec(match=RouteMatch(path="/way"), targets=(RouteTarget(function="hello", weight=1),))
    await world.run(c.ApplyRoute(namespace="default", name="way", spec=way))
    for command, waited in reads:
        world.fleet.asked.clear()
        await world.run(command)
        assert world.fleet.asked == waited, command
    world.fleet.asked.clear()
    changes = await world.run(c.WatchChanges(kinds=("Function",), after=0))
    assert (await anext(changes)).object.meta.name == "hello"
    assert world.fleet.asked == [hello]
    await changes.aclose()


async def test_a_build_may_not_ask_for_more_memory_than_its_quota(world: World) -> None:
    await world.namespace("small", NamespaceSpec(quota=Quota(memory=512)))
    await world.function("fits", "small", build=Build(memory=512))
    await world.function("default", "small")
    with pytest.raises(QuotaExceeded, match=r"namespace 'small' may use 512 MiB of memory.*513 MiB are asked for"):
        await world.function("big", "small", build=Build(memory=513))
    await world.function("big", build=Build(memory=4096))
    with pytest.raises(InvalidInput, match=r"build\.memory"):
        await world.function("tiny", build=Build(memory=1))
    spec = TokenSpec(sha256="0" * 64, namespaces=("*",), verbs=("*",), quota=Quota(memory=256))
    made = await world.store.create(Token(meta=Meta(name="held"), spec=spec))
    assert isinstance(made, Token)
    world.credentials.learn(made)
    template = FunctionTemplate(runtime="python", build=Build(memory=300))
    apply = c.ApplyFunction(namespace="default", name="held", spec=FunctionSpec(template=template))
    with pytest.raises(QuotaExceeded, match="token 'held' may use 256 MiB"):
        await world.run(apply, Caller(name="child", namespaces=("*",), verbs=("*",), account=("child", "held")))
