"""What a build sees of the host's own settings: variables, and the files that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

FILES = (
    "BUNDLE_SSL_CA_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_CAFILE",
    "PIP_CERT",
    "PIP_CONSTRAINT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)
"""Variables whose value is the path of one file."""
ALONE = {"GOPROXY": "off", "NPM_CONFIG_OFFLINE": "true", "PIP_RETRIES": "0"}
"""What tells installers not to wait for a network that is not there."""
_VISIBLE = ("/usr/", "/etc/ssl/certs/")
_CARRIED = "/run/build"


class Surroundings(NamedTuple):
    """Variables as they hold inside, and files to lay there: absolute path below /run -> bytes."""

    env: dict[str, str]
    files: dict[str, bytes]


def surroundings(env: Mapping[str, str]) -> Surroundings:
    """The host's variables; a file that the sandbox does not see is taken along. One that cannot be read is left
    as it is, so that the installer complains about the path that the operator wrote."""
    inside, files = dict(env), {}
    for name in FILES:
        path = env.get(name, "")
        if not path.startswith("/") or path.startswith(_VISIBLE):
            continue
        try:
            data = Path(path).read_bytes()
        except OSError:
            continue
        inside[name] = f"{_CARRIED}/{name}"
        files[inside[name]] = data
    return Surroundings(inside, files)
