"""Programs of the host that some tests want."""

from __future__ import annotations

import os
import shutil

import pytest

GO_FOLDERS = ("/usr/local/go/bin", "/usr/lib/go/bin")


def need(program: str, package: str, *folders: str) -> str:
    """The program's path, also from `folders`. Without it a test fails in CI, and is skipped elsewhere."""
    found = shutil.which(program, path=os.pathsep.join((os.environ["PATH"], *folders)))
    if found is None:
        why = f"{program} is missing: apt install {package}"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
    return str(found)
