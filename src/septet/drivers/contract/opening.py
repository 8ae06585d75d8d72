"""Connecting to an instance that is still coming up."""

from __future__ import annotations

import asyncio

from septet.model.errors import InstanceLost, NotFound, StartFailed
from septet.ports.contract import Connect
from septet.ports.sandbox import ProtocolFactory

FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.05


async def connect_until(connect: Connect, factory: ProtocolFactory, deadline: float) -> asyncio.Transport:
    """A stream to the process, tried again until it accepts; StartFailed at the deadline (loop time), or when the
    instance is gone."""
    loop = asyncio.get_running_loop()
    pause = FIRST_PAUSE
    while True:
        try:
            return await connect(factory)
        except NotFound as error:
            raise StartFailed("the process ended before it accepted a connection") from error
        except InstanceLost as error:
            if loop.time() + pause > deadline:
                raise not_in_time("it accepted no connection") from error
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def not_in_time(what: str) -> StartFailed:
    return StartFailed(
        f"the function was not ready in time: {what}",
        hint="see its log, or raise limits.start_timeout",
        limit="start_timeout",
    )
