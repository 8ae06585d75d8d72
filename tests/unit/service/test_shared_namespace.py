"""Isolation shared-namespace is the operator's to allow, and refused at once where it cannot hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from service_world import World

from septet.model.errors import InvalidInput
from septet.model.function import Network


async def test_nobody_has_it_unless_the_operator_says_so(world: World) -> None:
    with pytest.raises(InvalidInput, match="not allowed in namespace 'default'") as caught:
        await world.function("mine", isolation="shared-namespace")
    assert caught.value.details["field"] == "isolation"
    assert "--shared-namespace default" in caught.value.hint


@pytest.mark.parametrize("allowed", ["default", "*"])
async def test_where_it_is_allowed_it_has_no_network_and_a_frame_link(tmp_path: Path, allowed: str) -> None:
    world = await World(tmp_path, shared_namespaces=(allowed,)).open()
    try:
        made = await world.function("mine", isolation="shared-namespace")
        assert made.spec.template.isolation == "shared-namespace"
        wanted: dict[str, Any] = {"isolation": "shared-namespace"}
        with pytest.raises(InvalidInput, match="no way out"):
            await world.function("out", network=Network(mode="egress"), **wanted)
        with pytest.raises(InvalidInput, match="meet at a port"):
            await world.function("web", runtime="http", **wanted)
    finally:
        await world.close()
