"""Starts the platform and stops it; asks the host; restores a backup."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from septet import registry
from septet.app.host import before_functions, locked, many_files, one_heap, scratch
from septet.app.log import start_logging
from septet.app.platform import Platform, process_sandbox
from septet.drivers.blobs.files import FileBlobs
from septet.drivers.blobs.trees import DirectoryTrees
from septet.drivers.clock.system import SystemClock
from septet.drivers.sandbox.process.settings import ProcessSettings
from septet.model.errors import SeptetError
from septet.ports.sandbox import Check
from septet.service.restore import check_empty
from septet.service.restore import restore as restore_archive
from septet.settings import Settings

log = logging.getLogger("septet")

OnReady = Callable[[Mapping[str, Any]], None]


def run(settings: Settings, on_ready: OnReady) -> int:
    """Serves until SIGTERM or SIGINT; 0 after a clean end. Raises what a failed start raises."""
    start_logging(settings.log_level)
    many_files()
    before_functions()
    one_heap()
    import uvloop

    with locked(settings.data_dir), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, on_ready))


def doctor() -> list[Check]:
    """What this host can do, for the default driver."""

    async def ask() -> list[Check]:
        clock = SystemClock()
        with scratch() as folder:
            trees = DirectoryTrees(folder / "trees")
            sandbox = process_sandbox(registry.runtimes(), trees, folder / "sandbox", clock, ProcessSettings())
            try:
                return await sandbox.probe()
            finally:
                await sandbox.close()

    return asyncio.run(ask())


def restore(archive: Path, data_dir: Path) -> None:
    """A backup into an empty data directory; Conflict, InvalidInput, Corrupt."""
    check_empty(data_dir)
    with locked(data_dir):
        folder = data_dir / "blobs"
        asyncio.run(
            restore_archive(
                archive,
                store=data_dir / "store.db",
                key=data_dir / "vault.key",
                blobs=FileBlobs(folder),
                trees=DirectoryTrees(data_dir / "trees"),
            )
        )


async def _serve(settings: Settings, on_ready: OnReady) -> int:
    platform = Platform(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await platform.open()
    followers = [asyncio.create_task(platform.credentials.run()), asyncio.create_task(_collect(platform))]
    try:
        await platform.credentials.synced.wait()
        await platform.listen()
        gc.freeze()
        on_ready(
            {
                "url": platform.url,
                "token": platform.admin_token,
                "data_dir": str(settings.data_dir),
                "pid": os.getpid(),
                "listeners": platform.urls,
            }
        )
        await stop.wait()
        log.info("stopping: running calls get %g s", settings.drain_timeout)
    finally:
        for follower in followers:
            follower.cancel()
        await platform.close()
    return 0


async def _collect(platform: Platform) -> None:
    """What the service keeps in order; it goes on after whatever stopped it."""
    while True:
        try:
            await platform.service.keep_house()
        except SeptetError as error:
            log.warning("housekeeping failed: %s", error)
        await asyncio.sleep(5)
