"""What to run for a call."""

import os

NAMES = ("handler.sh", "main.sh", "handler", "main")


class CommandNotFound(Exception):
    """There is nothing that could be run."""


def find_command(given, handler, code):
    """The words to run: those of the spec's command, the handler file, or the one executable of the source.

    A file that lost its executable bit (archives do that) is run by what its first line names.
    """
    words = list(given) or [handler or _only_executable(code)]
    program = words[0]
    if "/" not in program and not given:
        program = "./" + program
    if "/" not in program:
        found = _search(program)
        if not found and os.path.isfile(os.path.join(code, program)):
            found = os.path.join(code, program)
        if not found:
            raise CommandNotFound(f"there is no program {program!r} on the path or in the source")
        program = found
    path = os.path.join(code, program)
    if not os.path.isfile(path):
        raise CommandNotFound(f"there is no file {words[0]}")
    path = os.path.normpath(path)
    if os.access(path, os.X_OK):
        return [path, *words[1:]]
    return [*_by_first_line(path), path, *words[1:]]


def _search(program):
    for folder in os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":"):
        path = os.path.join(folder or ".", program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def _by_first_line(path):
    with open(path, "rb") as file:
        line = file.readline(256)
    if line.startswith(b"#!"):
        return line[2:].decode("utf-8", "replace").strip().split(None, 1)
    if path.endswith(".sh"):
        return ["/bin/sh"]
    raise CommandNotFound(f"{os.path.basename(path)} is not executable: chmod +x it, or begin it with #!")


def _only_executable(code):
    files = [name for name in sorted(os.listdir(code)) if os.path.isfile(os.path.join(code, name))]
    for name in NAMES:
        if name in files:
            return name
    found = [name for name in files if os.access(os.path.join(code, name), os.X_OK)]
    if len(found) != 1:
        raise CommandNotFound(
            f'the source has none of {", ".join(NAMES)} nor exactly one executable: set `command`, as in ["./run.sh"]'
        )
    return found[0]
