from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent


def _load(name: str) -> Any:
    """The modules beside the tests, which are no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _HERE / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


for _name in ("memory_store", "fakes", "world"):
    _load(_name)


class _VirtualPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = _load("fakes").VirtualLoop()
        return loop


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """Tests of control run on virtual time."""
    return _VirtualPolicy()


@pytest.fixture
async def world() -> AsyncIterator[Any]:
    made = _load("world").World()
    yield made
    await made.stop()
