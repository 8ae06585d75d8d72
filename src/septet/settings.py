"""Every setting of the platform, and the only reader of the environment besides the client commands.

Precedence: flag, then environment (SEPTET_<NAME>), then default. A flag that was not given is None.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from septet.model.errors import InvalidInput

# What a build needs of the host to find packages: indexes, certificates, proxies. Values may hold credentials,
# so they go to builds alone and are blotted out of their logs.
BUILD_ENVIRONMENT = (
    "BUNDLE_MIRROR__ALL",
    "BUNDLE_SSL_CA_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GOFLAGS",
    "GOINSECURE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPRIVATE",
    "GOPROXY",
    "GOSUMDB",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "NPM_CONFIG_CAFILE",
    "NPM_CONFIG_REGISTRY",
    "PIP_CERT",
    "PIP_CONSTRAINT",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "UV_INDEX_URL",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


KEPT_MOST = 7 * 86400.0
WORKERS_MOST = 64


def default_data_dir() -> Path:
    """/var/lib/septet as root, else the user's own data directory."""
    if os.geteuid() == 0:
        return Path("/var/lib/septet")
    return Path(platformdirs.user_data_dir("septet"))


@dataclass(frozen=True)
class ListenerSettings:
    """One address that the platform serves."""

    name: str
    """What the ready line and the records call it."""

    address: str
    """HOST:PORT; port 0 picks a free one."""

    apis: tuple[str, ...] = ("native",)
    """Which APIs it speaks; a path that two of them claim goes to the first named."""

    namespace: str = "default"
    """For APIs whose addresses name none."""

    anonymous: tuple[str, ...] = ()
    """Namespaces whose functions may be called here without a token; on a loopback address only."""

    tls: bool = False
    """Whether it serves TLS with the platform's certificates."""


@dataclass(frozen=True)
class Settings:
    """What `septet up` runs with."""

    listen: str = "127.0.0.1:8080"
    """HOST:PORT of the main listener; port 0 picks a free one."""

    data_dir: Path = field(default_factory=default_data_dir)
    """Where the store, blobs, trees, logs and keys live; made with mode 0700."""

    ready_json: bool = False
    """Print one JSON line on standard output when it serves."""

    workers: int = 1
    """Processes that serve calls; with 1 the platform's own process does (docs/workers.md)."""

    sandbox: str = "process"
    """The driver for functions that name none; "none" runs them without walls, and says so."""

    memory_budget: int = 0
    """MiB that all instances and builds together may use; 0 takes three quarters of the host's memory."""

    warm_pool: int = -1
    """Prepared sandboxes that wait for cold starts of a runtime; 0 for none, -1 as many as recent starts ask for."""

    keep_alive: str = "0"
    """Seconds after its last call for which a function's last instance is kept frozen, where the function does not say
    otherwise; 0 for not at all, "auto" for as long as the function's own idle times suggest."""

    no_zygote: bool = False
    """Start every process by exec, as functions with `isolation: strict` always are; this ends the pool too."""

    shared_namespace: tuple[str, ...] = ()
    """Namespaces whose functions may ask for `isolation: shared-namespace` (docs/threat-model.md); `*` for all."""

    tls_cert: tuple[str, ...] = ()
    """PEM files with certificate chains, one per host name; reloaded when they change."""

    tls_key: tuple[str, ...] = ()
    """The keys of `tls_cert`, in the same order."""

    listener: tuple[str, ...] = ()
    """Further listeners, each as NAME,address=HOST:PORT[,apis=A+B][,namespace=NS][,anonymous=NS+NS][,tls=yes]."""

    public_metrics: bool = False
    """Serve /metrics without a token."""

    drain_timeout: float = 30.0
    """Seconds that running calls get when the platform stops."""

    log_bytes: int = 16 * 1024 * 1024
    """Bytes of log kept per function."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose X-Forwarded-* lines are believed."""

    log_level: str = "info"
    """Of the platform's own log on standard error: debug, info, warning, error."""

    build_env: Mapping[str, str] = field(default_factory=dict)
    """What every build finds in its environment."""

    def listeners(self) -> tuple[ListenerSettings, ...]:
        """The main listener, and the further ones. InvalidInput names what is wrong."""
        main = ListenerSettings(name="native", address=self.listen, tls=bool(self.tls_cert))
        found = (main, *(parse_listener(text) for text in self.listener))
        names = [each.name for each in found]
        if len(set(names)) != len(names):
            raise InvalidInput(f"two listeners have one name: {', '.join(names)}")
        if any(each.tls for each in found) and not self.tls_cert:
            raise InvalidInput("a listener with tls=yes needs --tls-cert and --tls-key")
        return found

    @property
    def kept(self) -> float | None:
        """`keep_alive` in seconds, None for "auto"; InvalidInput."""
        if self.keep_alive == "auto":
            return None
        try:
            seconds = float(self.keep_alive)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= KEPT_MOST:
            raise InvalidInput(
                f"{self.keep_alive!r} is no time to keep an instance",
                hint=f'give seconds from 0 to {KEPT_MOST:g}, or "auto"',
            )
        return seconds

    @property
    def address(self) -> tuple[str, int]:
        """The main listener's host and port."""
        return parse_address(self.listen)


def parse_address(text: str) -> tuple[str, int]:
    """ "127.0.0.1:8080" or "[::1]:8080" -> host, port; InvalidInput."""
    host, sep, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not sep or not host or not port.isdigit() or int(port) > 65535:
        raise InvalidInput(f"{text!r} is no HOST:PORT", hint="for example 127.0.0.1:8080, or port 0 for a free one")
    return host, int(port)


_LISTENER_KEYS = ("address", "apis", "namespace", "anonymous", "tls")


def parse_listener(text: str) -> ListenerSettings:
    """ "web,address=127.0.0.1:9000,anonymous=demo" -> its settings; InvalidInput."""
    name, _, rest = text.partition(",")
    pairs = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    unknown = [key for key in pairs if key not in _LISTENER_KEYS]
    if unknown or not name or "=" in name or "address" not in pairs:
        raise InvalidInput(
            f"{text!r} describes no listener" + (f": {unknown[0]!r} is no part of one" if unknown else ""),
            hint="write NAME,address=HOST:PORT and, if wanted, apis=, namespace=, anonymous=, tls=yes",
        )
    host, _ = parse_address(pairs["address"])
    anonymous = tuple(part for part in pairs.get("anonymous", "").split("+") if part)
    if anonymous and not is_loopback(host):
        raise InvalidInput(
            f"the listener {name!r} would let strangers call without a token: {host} is no loopback address",
            hint="listen on 127.0.0.1, or leave anonymous out",
        )
    return ListenerSettings(
        name=name,
        address=pairs["address"],
        apis=tuple(part for part in pairs.get("apis", "native").split("+") if part),
        namespace=pairs.get("namespace", "default"),
        anonymous=anonymous,
        tls=pairs.get("tls", "no") == "yes",
    )


def is_loopback(host: str) -> bool:
    """Whether only this host can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags (None means not given) and the environment; InvalidInput names the bad one."""
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    known = {item.name: item for item in fields(Settings)}
    for name, value in flags.items():
        if name not in known:
            raise InvalidInput(f"there is no setting {name!r}")
        if value is not None and value != ():
            values[name] = value
    for name in known:
        variable = f"SEPTET_{name.upper()}"
        if name not in values and name != "build_env" and variable in env:
            values[name] = _parse(name, env[variable])
    values["data_dir"] = Path(values.get("data_dir") or default_data_dir()).absolute()
    values.setdefault("build_env", {name: env[name] for name in BUILD_ENVIRONMENT if name in env})
    settings = Settings(**values)
    if not 1 <= settings.workers <= WORKERS_MOST:
        raise InvalidInput(f"workers: must be 1 to {WORKERS_MOST}", hint="one for each core is enough")
    _ = settings.address, settings.listeners(), settings.kept
    if len(settings.tls_cert) != len(settings.tls_key):
        raise InvalidInput("as many --tls-key as --tls-cert are needed, in the same order")
    return settings


def _parse(name: str, text: str) -> Any:
    default = Settings.__dataclass_fields__[name].default
    if isinstance(default, bool):
        if text.lower() not in ("0", "1", "true", "false", "yes", "no"):
            raise InvalidInput(f"SEPTET_{name.upper()}={text!r} is neither true nor false")
        return text.lower() in ("1", "true", "yes")
    if isinstance(default, tuple):
        # Listeners hold commas themselves.
        return tuple(part for part in text.split(";" if name == "listener" else ",") if part)
    try:
        return type(default)(text) if isinstance(default, int | float) else text
    except ValueError as error:
        raise InvalidInput(f"SEPTET_{name.upper()}={text!r} is no number") from error
