"""The whole suite again as an ordinary user, when the tests run as root."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
USER = 54321

# Checkout and interpreter may lie below a folder that only root may enter. In a mount namespace of its own, each
# such folder is covered by an open one, into which what is needed is bound at its own path.
AS_USER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from septet.drivers.sandbox.process import syscalls as s
folders = sys.argv[3].split(os.pathsep)
s.unshare(s.CLONE_NEWNS)
s.mount("none", "/", "", s.MS_REC | s.MS_PRIVATE)
opened = {path: os.open(path, os.O_PATH) for path in folders}
for path in folders:
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts)):
        above = "/" + "/".join(parts[:depth])
        if not os.stat(above).st_mode & 0o001:
            s.mount("tmpfs", above, "tmpfs", 0, "mode=755,size=1m")
            for inner in (one for one in folders if one.startswith(above + "/")):
                os.makedirs(inner, exist_ok=True)
                s.mount(f"/proc/self/fd/{opened[inner]}", inner, "", s.MS_BIND | s.MS_REC)
os.setgroups([])
os.setresgid(*[int(sys.argv[2])] * 3)
os.setresuid(*[int(sys.argv[2])] * 3)
os.chdir("/")
os.execv(sys.executable, [sys.executable, *sys.argv[4:]])
"""


@pytest.mark.root
def test_the_suite_as_an_ordinary_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        pytest.skip("the tests run as an ordinary user already")
    import septet

    source = str(Path(septet.__file__).parent.parent)
    base = Path("/var/tmp") / f"septet-suite-{os.getpid()}"
    base.mkdir(mode=0o755)
    os.chown(base, USER, USER)
    folders = dict.fromkeys([str(REPOSITORY), source, sys.prefix, sys.base_prefix])
    command = [sys.executable, "-c", AS_USER, source, str(USER), os.pathsep.join(folders), "-m", "pytest"]
    command += ["-p", "no:cacheprovider", f"--basetemp={base}/t", str(HERE / "test_sandbox_port.py")]
    command += [str(HERE / "test_process_sandbox.py"), f"--rootdir={REPOSITORY}", "-c", f"{REPOSITORY}/pyproject.toml"]
    environment = {
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(base),
        "PYTHONPATH": source,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    finally:
        subprocess.run(["rm", "-rf", str(base)], check=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout + done.stderr)
    assert passed is not None, done.stdout
    assert int(passed[1]) >= 36, done.stdout
