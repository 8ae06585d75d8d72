"""A function that wants the network is refused at once where the host has none to give."""

from __future__ import annotations

from typing import Any

import pytest

from septet.model.errors import InvalidInput
from septet.model.function import Network
from septet.ports.sandbox import Check

LACKING = Check(name="egress: nft", state="missing", detail="not installed", fix="apt install nftables")


async def test_egress_that_cannot_work_is_refused_at_apply(world: Any) -> None:
    world.fleet.no_egress = {"": (LACKING,)}
    with pytest.raises(InvalidInput, match="egress: nft: not installed") as caught:
        await world.function("out", network=Network(mode="egress"))
    assert (caught.value.hint, caught.value.details["field"]) == ("apt install nftables", "network")
    await world.function("quiet")
    world.fleet.no_egress = {}
    await world.function("out", network=Network(mode="egress"))


async def test_it_is_the_named_sandbox_that_is_asked(world: Any) -> None:
    world.fleet.no_egress = {"other": (LACKING,)}
    wants = Network(mode="egress")
    with pytest.raises(InvalidInput, match="in the sandbox 'other' on this host: egress: nft: not installed"):
        await world.function("out", network=wants, sandbox="other")
    await world.function("default", network=wants)
    await world.function("named", network=wants, sandbox="process")
    world.fleet.no_egress = {"": (LACKING,)}
    await world.function("out", network=wants, sandbox="other")
