"""What needs root is left out for an ordinary user, and listed by name, so that nothing is skipped silently."""

from __future__ import annotations

import os

import pytest

_LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    needs_root = [item for item in items if item.get_closest_marker("root")]
    config.stash[_LEFT_OUT] = [item.nodeid for item in needs_root]
    if needs_root:
        config.hook.pytest_deselected(items=needs_root)
        items[:] = [item for item in items if item not in set(needs_root)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash.get(_LEFT_OUT, [])
    if left_out:
        terminalreporter.section(f"{len(left_out)} left out, they need root")
        for name in left_out:
            terminalreporter.write_line(name)
