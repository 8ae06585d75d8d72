"""One platform per module, started as the user would start it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from septet_platform import Platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running platform, shared by the tests of a module: use names of your own in it."""
    with Platform(tmp_path_factory.mktemp("platform") / "data") as running:
        yield running
    assert running.process is not None
    assert running.process.returncode == 0, running.log.read_text()[-4000:]


@pytest.fixture
def own_platform(tmp_path: Path) -> Iterator[Platform]:
    """A platform of the test's own, not yet started."""
    platform = Platform(tmp_path / "data")
    yield platform
    if platform.process and platform.process.poll() is None:
        platform.stop()
