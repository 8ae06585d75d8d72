"""Tokens: shown once, known at once, worth nothing once deleted, never more than their maker's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from service_world import NOW, World

from septet.model.access import Caller
from septet.model.errors import Conflict, Expired, Forbidden, InvalidInput, NotFound, Unauthenticated
from septet.model.objects import Quota
from septet.ports.store import Change
from septet.service import commands as c
from septet.service.authenticate import Credentials, digest
from septet.service.bootstrap import admin_token, bootstrap


def create(name: str = "ci", **fields: Any) -> c.CreateToken:
    fields.setdefault("namespaces", ("default",))
    fields.setdefault("verbs", ("functions:invoke",))
    return c.CreateToken(name=name, **fields)


async def test_a_token_works_at_once_and_is_kept_as_a_hash(world: World) -> None:
    made = await world.run(create(expires_at=NOW + 10))
    assert len(made.token) == 48 and made.token.startswith("sept_")
    caller = world.credentials.authenticate(made.token, "192.0.2.9")
    assert (caller.name, caller.verbs, caller.remote) == ("ci", ("functions:invoke",), "192.0.2.9")
    disk = b"".join(path.read_bytes() for path in world.folder.glob("septet.db*"))
    assert made.token.encode() not in disk
    assert digest(made.token).encode() in disk
    shown = msgspec.json.encode([await world.run(c.GetToken(name="ci")), await world.run(c.ListTokens())])
    assert digest(made.token).encode() not in shown
    assert made.token not in repr(made)
    world.clock.time += 10
    with pytest.raises(Unauthenticated, match="expired"):
        world.credentials.authenticate(made.token)


async def test_a_deleted_token_is_worth_nothing_at_once(world: World) -> None:
    made = await world.run(create())
    await world.run(c.DeleteToken(name="ci"))
    with pytest.raises(Unauthenticated):
        world.credentials.authenticate(made.token)
    again = await world.run(create())
    await asyncio.sleep(0.1)
    assert world.credentials.authenticate(again.token).name == "ci"
    with pytest.raises(Unauthenticated):
        world.credentials.authenticate(made.token)


async def test_a_credential_that_just_passed_is_checked_like_any_other(world: World) -> None:
    made = await world.run(create(expires_at=NOW + 10))
    first = world.credentials.authenticate(made.token)
    assert world.credentials.authenticate(made.token) == first
    assert world.credentials.authenticate(made.token, "192.0.2.9").remote == "192.0.2.9"
    world.clock.time += 10
    with pytest.raises(Unauthenticated, match="expired"):
        world.credentials.authenticate(made.token)
    lasting = await world.run(create("lasting"))
    assert world.credentials.authenticate(lasting.token).name == "lasting"
    await world.run(c.DeleteToken(name="lasting"))
    with pytest.raises(Unauthenticated):
        world.credentials.authenticate(lasting.token)


async def test_tokens_that_others_write_are_known_through_the_watch(world: World) -> None:
    other = Credentials(world.store, world.clock)
    following = asyncio.create_task(other.run())
    await other.synced.wait()
    made = await world.run(create())
    async with asyncio.timeout(5):
        while True:
            try:
                assert other.authenticate(made.token).name == "ci"
                break
            except Unauthenticated:
                await asyncio.sleep(0.01)
    await world.run(c.DeleteToken(name="ci"))
    async with asyncio.timeout(5):
        while True:
            try:
                other.authenticate(made.token)
            except Unauthenticated:
                break
            await asyncio.sleep(0.01)
    following.cancel()


async def test_nobody_hands_on_more_than_they_hold(world: World) -> None:
    maker = Caller(
        name="maker",
        namespaces=("default",),
        verbs=("tokens:write", "functions:*"),
        expires_at=NOW + 100,
        quota=Quota(requests=10),
    )
    good: dict[str, Any] = {"expires_at": NOW + 50, "quota": Quota(requests=5)}
    await world.run(create(**good), maker)
    for bad in (
        {"namespaces": ("*",)},
        {"namespaces": ("default", "other")},
        {"verbs": ("*",)},
        {"verbs": ("*:read",)},
        {"verbs": ("functions:read", "secrets:read")},
        {"expires_at": 0.0},
        {"expires_at": NOW + 200},
        {"quota": Quota()},
        {"quota": Quota(requests=11)},
    ):
        with pytest.raises(Forbidden):
            await world.run(create("more", **{**good, **bad}), maker)


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "platform"},
        {"name": "anonymous"},
        {"name": "instance:i-1"},
        {"name": "a/b"},
        {"namespaces": ()},
        {"verbs": ()},
        {"verbs": ("everything",)},
        {"expires_at": NOW - 1},
        {"expires_at": float("inf")},
        {"description": "a\nb"},
        {"quota": Quota(requests=-1)},
    ],
)
async def test_bad_tokens_are_refused(world: World, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await world.run(create(**{"name": "ci", **bad}))


async def test_the_admin_token_stays_and_names_are_taken_once(world: World) -> None:
    with pytest.raises(Conflict):
        await world.run(c.DeleteToken(name="admin"))
    await world.run(create())
    with pytest.raises(Conflict):
        await world.run(create())
    with pytest.raises(NotFound):
        await world.run(c.DeleteToken(name="nobody"))


async def test_the_admin_token_is_made_once_and_kept_private(world: World) -> None:
    path = world.folder / "admin-token"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert await bootstrap(world.store, world.folder) == world.admin
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    fresh = await bootstrap(world.store, world.folder)
    assert fresh != world.admin
    async with asyncio.timeout(5):
        while True:
            try:
                assert world.credentials.authenticate(fresh).verbs == ("*",)
                break
            except Unauthenticated:
                await asyncio.sleep(0.01)
    with pytest.raises(Unauthenticated):
        world.credentials.authenticate(world.admin)


def test_a_link_in_place_of_the_admin_token_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("sept_" + "A" * 43)
    (tmp_path / "admin-token").symlink_to(target)
    with pytest.raises(OSError):
        admin_token(tmp_path / "admin-token")


def test_a_damaged_admin_token_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("short")
    text = admin_token(tmp_path / "admin-token")
    assert len(text) == 48
    assert admin_token(tmp_path / "admin-token") == text


async def test_after_a_lost_place_in_the_watch_all_tokens_are_read_again(world: World) -> None:
    """A deletion that happened in the gap must count as well."""
    kept, lost = await world.run(create("kept")), await world.run(create("lost"))
    watch, breaks = world.store.watch, 0
    gap = asyncio.Event()

    async def broken(after: int, kinds: frozenset[str] | None = None) -> AsyncIterator[Change]:
        nonlocal breaks
        breaks += 1
        if breaks == 1:
            await gap.wait()
            raise Expired("no longer kept")
        async for change in watch(after, kinds):
            yield change

    world.store.watch = broken  # type: ignore[method-assign]
    other = Credentials(world.store, world.clock)
    following = asyncio.create_task(other.run())
    await other.synced.wait()
    assert other.authenticate(lost.token).name == "lost"
    await world.store.delete("Token", "", "lost")
    gap.set()
    async with asyncio.timeout(5):
        while breaks < 2:
            await asyncio.sleep(0.01)
    assert other.authenticate(kept.token).name == "kept"
    with pytest.raises(Unauthenticated):
        other.authenticate(lost.token)
    following.cancel()
