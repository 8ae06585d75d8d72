"""Holds a process sandbox with one running instance until somebody kills it: LEVEL FOLDER."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sandbox_beds import PlainBed, ProcessBed


async def main() -> None:
    folder = Path(sys.argv[2])
    folder.mkdir()
    bed = (ProcessBed if sys.argv[1] == "full" else PlainBed)(folder)
    await bed.open()
    await bed.driver.start(bed.request("held", "echo fork"))
    while not any(event.instance.state == "running" for event in bed.events):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    print("running", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
