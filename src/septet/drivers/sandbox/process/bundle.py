"""Makes the script that a zygote runs: the launcher's modules and the runtime's, with paths as they are inside."""

from __future__ import annotations

from pathlib import Path

from septet.drivers.sandbox.process.bootstrap import SCRIPT
from septet.drivers.sandbox.process.resolve import RUNTIME_TARGET, Stage

START = f"{RUNTIME_TARGET}/start.py"
FLAGS = ("-I", "-S", "-B")
_LAUNCHER = (
    "bpf",
    "init",
    "keeper",
    "landlock",
    "launcher",
    "mounts",
    "park",
    "process",
    "rights",
    "seccomp",
    "seccomp_lists",
    "seccomp_rules",
    "seccomp_tables",
    "spec",
    "syscalls",
)
_PACKAGE = "septet.drivers.sandbox.process"
_HERE = Path(__file__).parent


def argument() -> str:
    """The script's descriptor, by a name as long as the one to be shown."""
    name = f"/dev/fd/{SCRIPT}"
    return "/" * (len(START) - len(name)) + name


def script(runtime: Path, family: str, stage: Stage | None = None) -> bytes:
    """Everything, as the source of one script."""
    modules: dict[str, tuple[str, str, bool]] = {}
    parts = _PACKAGE.split(".")
    for end in range(1, len(parts) + 1):
        modules[".".join(parts[:end])] = ("/".join([*parts[:end], "__init__.py"]), "", True)
    for name in _LAUNCHER:
        modules[f"{_PACKAGE}.{name}"] = (f"septet/{name}.py", (_HERE / f"{name}.py").read_text(), False)
    modules["septet_zygote"] = (f"{RUNTIME_TARGET}/zygote.py", (runtime / "zygote.py").read_text(), False)
    for path in sorted(runtime.glob("*/*.py")):
        package = path.parent.name
        init = path.stem == "__init__"
        inside = f"{RUNTIME_TARGET}/{package}/{path.name}"
        modules[package if init else f"{package}.{path.stem}"] = (inside, path.read_text(), init)
    if (runtime / "start.py").is_file():
        modules["septet_start"] = (START, (runtime / "start.py").read_text(), False)
    bootstrap = (_HERE / "bootstrap.py").read_text()
    return f"{bootstrap}\n\nmain({modules!r}, {START!r}, {family!r}, {stage!r})\n".encode()
