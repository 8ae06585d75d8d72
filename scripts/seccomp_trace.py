#!/usr/bin/env python3
"""Writes the traced allow-lists (drivers/sandbox/process/seccomp_lists.py) by running real programs under strace.

    scripts/seccomp_trace.py                     trace every family's workload and write the lists
    scripts/seccomp_trace.py FAMILY -- COMMAND   trace one command and print what FAMILY's filter would refuse

Every interpreter found is traced, and the lists only grow: a call that another host's libc needed stays.
A family whose interpreter is missing keeps its list and is named on standard error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = ROOT / "src/septet/drivers/sandbox/process/seccomp_lists.py"
WORKLOADS = ROOT / "scripts/seccomp_workloads"
SHELL = """
echo a | cat | grep a; ls -lR /etc >/dev/null 2>&1; find /etc/ssl | head -3
cp /etc/passwd /tmp/p.$$; mv /tmp/p.$$ /tmp/q.$$; sort /tmp/q.$$ | uniq | wc
tar cf - /etc/passwd 2>/dev/null | gzip | wc -c; sed p /dev/null; awk 'BEGIN{print 1}'; date; sleep 0.01
mkfifo /tmp/f.$$; rm /tmp/[pqf].$$; trap : TERM; kill -TERM $$; ulimit -n; umask
"""
HEAD = '''"""What real programs called, family by family. Written by scripts/seccomp_trace.py; do not edit."""

from __future__ import annotations

'''

sys.path.insert(0, str(ROOT / "src"))


def called(command: list[str]) -> set[str]:
    """Names of the system calls that the command and its children made; RuntimeError when it failed."""
    with tempfile.NamedTemporaryFile("r") as log:
        run = subprocess.run(
            ["strace", "-f", "-qq", "-e", "signal=none", "-o", log.name, *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=300,
        )
        if run.returncode != 0:
            raise RuntimeError(f"{command[0]} ended with {run.returncode}: {run.stderr.decode()[-500:]}")
        return set(re.findall(r"^\d+ +(?:<\.\.\. )?([a-z_0-9]+)[( ]", log.read(), re.MULTILINE))


def pythons() -> Iterator[str]:
    yield from (path for path in ("/usr/bin/python3", sys.executable) if Path(path).exists())
    yield from (str(path) for path in sorted((Path.home() / ".pyenv/versions").glob("3.1[1-9]*/bin/python3")))


def commands(family: str, scratch: Path) -> Iterator[list[str]]:
    """The command lines to trace for a family; none when its interpreter is missing."""
    if family == "python":
        yield from ([python, "-I", str(WORKLOADS / "python.py")] for python in dict.fromkeys(pythons()))
    elif family == "shell":
        yield from ([shell, "-c", SHELL] for shell in ("/bin/sh", "/bin/bash") if Path(shell).exists())
    elif family == "go":
        if go := shutil.which("go"):
            built = scratch / "work"
            environment = {"CGO_ENABLED": "0", "GO111MODULE": "off", "HOME": str(scratch), "PATH": "/usr/bin:/bin"}
            subprocess.run([go, "build", "-o", str(built), str(WORKLOADS / "go.go")], check=True, env=environment)
            yield [str(built)]
    else:
        suffix = {"node": "js", "ruby": "rb"}[family]
        if found := shutil.which(family):
            yield [found, str(WORKLOADS / f"{family}.{suffix}")]


def known() -> dict[str, set[str]]:
    """The lists as they are checked in."""
    if not LISTS.exists():
        return {}
    scope: dict[str, object] = {}
    exec(LISTS.read_text(), scope)  # noqa: S102 - our own checked-in file, read before the package can be imported
    return {name.lower(): set(str(text).split()) for name, text in scope.items() if name.isupper()}


def write(lists: dict[str, set[str]]) -> None:
    parts = []
    for family, names in sorted(lists.items()):
        body = "\n".join(textwrap.wrap(" ".join(sorted(names)), 118))
        parts.append(f'{family.upper()} = """\n{body}\n"""\n')
    LISTS.write_text(HEAD + "\n".join(parts))


def trace_all() -> None:
    lists = known()
    with tempfile.TemporaryDirectory() as scratch:
        for family in ("go", "node", "python", "ruby", "shell"):
            found = [called(command) for command in commands(family, Path(scratch))]
            if not found:
                print(f"{family}: no interpreter here, its list stays", file=sys.stderr)
            lists[family] = lists.get(family, set()).union(*found)
            print(f"{family}: {len(lists[family])} calls", file=sys.stderr)
    write(lists)


def main(arguments: list[str]) -> int:
    if not arguments:
        trace_all()
        return 0
    if len(arguments) < 3 or arguments[1] != "--":
        print(__doc__, file=sys.stderr)
        return 2
    from septet.drivers.sandbox.process import seccomp

    print("\n".join(sorted(called(arguments[2:]) - seccomp.allowed(arguments[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
