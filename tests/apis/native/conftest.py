"""The native API on a service with real drivers, called through its ASGI interface."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "harness"))

from asgi_client import AsgiClient
from service_world import World

from septet.apis.native.app import NativeApi, NativeSettings


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path).open()
    yield made
    await made.close()


@pytest.fixture
async def api(world: World) -> AsgiClient:
    """A client with the admin's token."""
    settings = NativeSettings(version="0.1.0", ready=lambda: (True, ""), keep_alive=0.2)
    return AsgiClient(NativeApi(world.service, settings), world.admin)
