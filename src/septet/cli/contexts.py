"""Contexts: which platforms this user talks to, in one file that only the user may read.

The file is JSON: {"current": "local", "contexts": {"local": {"url": ..., "token": ..., "ca": ..., "namespace": ...}}}.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from septet.cli.failures import Exit, Failure

DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Context:
    """One platform as this user reaches it."""

    url: str
    token: str = ""
    ca: str = ""
    namespace: str = "default"


@dataclass
class Contexts:
    """All that the file holds."""

    current: str = ""
    contexts: dict[str, Context] = field(default_factory=dict)


def context_file() -> Path:
    """Where the file stands: SEPTET_CONFIG, else below the user's configuration folder."""
    if named := os.environ.get("SEPTET_CONFIG"):
        return Path(named)
    if sys.platform == "linux":
        # As platformdirs has it, without its import: this is on the way of every command.
        return Path(os.environ.get("XDG_CONFIG_HOME", "").strip() or "~/.config").expanduser() / "septet/contexts.json"
    import platformdirs

    return Path(platformdirs.user_config_dir("septet")) / "contexts.json"


def load_contexts(path: Path | None = None) -> Contexts:
    """The file's contexts; none when there is no file. Failure when it is not what this module writes."""
    path = path or context_file()
    try:
        data = json.loads(path.read_bytes())
        found = {name: Context(**entry) for name, entry in data["contexts"].items()}
        return Contexts(current=data.get("current", ""), contexts=found)
    except FileNotFoundError:
        return Contexts()
    except PermissionError:
        raise Failure(f"{path} cannot be read", hint="it should belong to you, with mode 0600") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(f"{path} is damaged ({error})", hint="remove it, `septet up` writes it anew") from None


def save_contexts(contexts: Contexts, path: Path | None = None) -> Path:
    """Replaces the file in one step, with mode 0600 from the start; returns where it stands."""
    import tempfile

    path = path or context_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = {"current": contexts.current, "contexts": {name: asdict(c) for name, c in contexts.contexts.items()}}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".contexts-")
    try:
        with os.fdopen(handle, "w") as out:
            json.dump(data, out, indent=2)
            out.write("\n")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def choose_context(name: str = "", path: Path | None = None) -> Context:
    """The context to use. SEPTET_URL (with SEPTET_TOKEN, SEPTET_CA) wins unless a context is named.

    Without any, the default address is used without a token: the platform's answer then says what is missing.
    """
    env = os.environ
    named = name or env.get("SEPTET_CONTEXT", "")
    if not named and env.get("SEPTET_URL"):
        return Context(
            url=env["SEPTET_URL"],
            token=env.get("SEPTET_TOKEN", ""),
            ca=env.get("SEPTET_CA", ""),
            namespace=env.get("SEPTET_NAMESPACE") or "default",
        )
    known = load_contexts(path)
    if named and named not in known.contexts:
        names = ", ".join(sorted(known.contexts)) or "none yet"
        raise Failure(f"no context {named!r}", hint=f"there are: {names}", code=Exit.USAGE)
    found = known.contexts.get(named or known.current, Context(url=DEFAULT_URL))
    return Context(
        url=found.url,
        token=env.get("SEPTET_TOKEN") or found.token,
        ca=env.get("SEPTET_CA") or found.ca,
        namespace=env.get("SEPTET_NAMESPACE") or found.namespace,
    )
