"""A canary goes in as a secret's value, and is looked for everywhere."""

from __future__ import annotations

import base64

import pytest
from service_world import World

from septet.model.errors import Conflict, InvalidInput
from septet.model.function import SecretUse
from septet.service import commands as c

CANARY = b"canary-7f3a-91bc"


def put(world: World, value: bytes = CANARY, **fields: object) -> c.ApplySecret:
    return c.ApplySecret(namespace="default", name="db", data={"password": value}, **fields)  # type: ignore[arg-type]


async def test_a_value_is_nowhere_but_sealed(world: World) -> None:
    import msgspec

    command = put(world)
    assert CANARY.decode() not in repr(command)
    seen = [await world.run(command), await world.run(put(world, CANARY + b"2")), await world.run(put(world))]
    seen += [
        await world.run(c.GetSecret(namespace="default", name="db")),
        await world.run(c.ListSecrets(namespace="default")),
    ]
    await world.function(secrets=(SecretUse(name="db", keys=("password",)),))
    answers = b"".join(msgspec.json.encode(answer) for answer in seen)
    audit = msgspec.json.encode(await world.audit())
    disk = b"".join(path.read_bytes() for path in world.folder.rglob("*") if path.is_file())
    for spelling in (CANARY, base64.b64encode(CANARY), CANARY.hex().encode()):
        assert spelling not in answers
        assert spelling not in audit
        assert spelling not in disk
    stored = await world.store.get("Secret", "default", "db")
    assert world.vault.open(stored.spec.sealed["password"], "default/db/password") == CANARY  # type: ignore[union-attr]


async def test_an_equal_apply_changes_nothing_and_a_new_value_is_named_by_its_key(world: World) -> None:
    assert (await world.run(put(world))).action == "created"
    assert (await world.run(put(world))).action == "unchanged"
    changed = await world.run(put(world, b"other"))
    assert changed.action == "updated"
    assert [(x.field, x.old, x.new) for x in changed.changes] == [("data.password", "(a value)", "(a new value)")]


async def test_a_secret_in_use_stays(world: World) -> None:
    await world.run(put(world))
    await world.function(secrets=(SecretUse(name="db"),))
    with pytest.raises(Conflict, match="function 'hello'"):
        await world.run(c.DeleteSecret(namespace="default", name="db"))
    await world.run(c.DeleteFunction(namespace="default", name="hello"))
    await world.run(c.DeleteSecret(namespace="default", name="db"))


@pytest.mark.parametrize("key", ["", "..", "a/b", "a b", "a\0"])
async def test_keys_are_names_of_files(world: World, key: str) -> None:
    with pytest.raises(InvalidInput):
        await world.run(c.ApplySecret(namespace="default", name="db", data={key: b"x"}))


async def test_a_refusal_of_a_size_does_not_show_the_value(world: World) -> None:
    with pytest.raises(InvalidInput) as caught:
        await world.run(put(world, CANARY * 100_000))
    assert CANARY.decode() not in str(caught.value)
