"""Functions and their immutable revisions."""

from __future__ import annotations

from typing import Literal

import msgspec

from septet.model.meta import Condition, Meta


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one instance may use. Memory and tmp in MiB, cpu in cores, times in seconds, bodies in bytes.

    `concurrency` is the hard limit of calls at a time in one instance; 0 means the runtime's own default,
    -1 no limit.
    """

    memory: int = 128
    cpu: float = 1.0
    pids: int = 64
    tmp: int = 64
    timeout: float = 60.0
    start_timeout: float = 30.0
    concurrency: int = 0
    request_body: int = 16 * 1024 * 1024 * 1024
    queue: int = 10_000
    queue_timeout: float = 60.0


class Scale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many instances. `max` 0 means no maximum of its own, `target` 0 the policy's default.

    `policy` names an entry of the policy registry ("concurrency", "rps", "fixed"). Times in seconds. `keep_alive` is
    how long after its last call the last instance is kept frozen; 0 is not at all, "auto" as its idle times say, None
    what the platform does.
    """

    min: int = 0
    max: int = 0
    initial: int = 1
    policy: str = "concurrency"
    target: float = 0.0
    utilization: float = 0.7
    window: float = 60.0
    panic_window_percent: float = 10.0
    panic_threshold_percent: float = 200.0
    max_up_rate: float = 1000.0
    max_down_rate: float = 2.0
    down_delay: float = 0.0
    grace: float = 30.0
    keep_alive: float | Literal["auto"] | None = None


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`none`: nothing but the inner gateway. `egress`: outwards, only to `allow` when it is not empty.

    Entries of `allow`: "host", "host:port", "cidr" or "cidr:port".
    """

    mode: Literal["none", "egress"] = "none"
    allow: tuple[str, ...] = ()


class Readiness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an HTTP process counts as ready: it accepts connections and, with `path`, answers it 2xx or 3xx."""

    path: str = ""
    period: float = 0.1
    timeout: float = 5.0


class SecretUse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which secret the function sees: as files `/run/secrets/<name>/<key>` and, with `env`, as variables.

    Keys become variables under their own name, after `prefix`.
    """

    name: str
    keys: tuple[str, ...] = ()
    env: bool = False
    files: bool = True
    prefix: str = ""


class Build(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How dependencies are installed. `secret` names a secret whose keys are environment variables of the
    build alone (an index URL with credentials, for example); `env` are plain ones. `memory` is what each step may use,
    in MiB; 0 leaves it to the platform."""

    skip: bool = False
    env: dict[str, str] = {}
    secret: str = ""
    timeout: float = 600.0
    memory: int = 0


Isolation = Literal["default", "strict", "shared-namespace"]
"""How far instances are kept apart beyond the sandbox: a strict one is exec'ed and shares no address-space layout and
no hash seed with others, which costs it the fast starts. Those of `shared-namespace`, where the operator allows it,
share network, process numbers and host name with all such instances of their namespace, and start faster."""


class FunctionTemplate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that makes a revision: a change here makes a new one.

    `source` is the blob digest of the uploaded archive ("sha256:..."). `platform` lists the verbs that the
    function asks for on the inner gateway, for its own namespace ("functions:invoke", "functions:read").
    """

    runtime: str
    source: str = ""
    handler: str = ""
    command: tuple[str, ...] = ()
    working_directory: str = ""
    environment: str = ""
    env: dict[str, str] = {}
    secrets: tuple[SecretUse, ...] = ()
    limits: Limits = Limits()
    scale: Scale = Scale()
    network: Network = Network()
    readiness: Readiness = Readiness()
    build: Build = Build()
    sandbox: str = ""
    isolation: Isolation = "default"
    platform: tuple[str, ...] = ()


class TrafficTarget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share of the traffic: to a named revision, or, with an empty `revision`, to the latest ready one."""

    percent: int = 0
    revision: str = ""
    tag: str = ""


class FunctionSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Desired state of a function. `access` public means calls need no token. `retain` counts the revisions
    kept beside those that traffic or a tag refers to; `rollout` is in seconds, 0 moves at once."""

    template: FunctionTemplate
    traffic: tuple[TrafficTarget, ...] = (TrafficTarget(percent=100),)
    access: Literal["token", "public"] = "token"
    rollout: float = 0.0
    retain: int = 10


class FunctionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Observed state, written by control alone. `traffic` is resolved: every target names a revision."""

    observed_generation: int = 0
    latest_created: str = ""
    latest_ready: str = ""
    revision_counter: int = 0
    template_digest: str = ""
    traffic: tuple[TrafficTarget, ...] = ()
    rollout_started_at: float = 0.0
    conditions: tuple[Condition, ...] = ()


class Function(msgspec.Struct, frozen=True, kw_only=True, tag="Function", tag_field="kind"):
    meta: Meta
    spec: FunctionSpec
    status: FunctionStatus = FunctionStatus()


class RevisionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable: what was deployed, by number. `artifact` is set once, when the build is done (status)."""

    function: str
    function_uid: str
    number: int
    template: FunctionTemplate


class RevisionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`artifact` is a tree digest; `phase` says where the revision stands; `log` is the build log's blob."""

    phase: Literal["pending", "building", "starting", "ready", "failed", "retired"] = "pending"
    artifact: str = ""
    build_log: str = ""
    ready_at: float = 0.0
    unused_since: float = 0.0
    conditions: tuple[Condition, ...] = ()


class Revision(msgspec.Struct, frozen=True, kw_only=True, tag="Revision", tag_field="kind"):
    meta: Meta
    spec: RevisionSpec
    status: RevisionStatus = RevisionStatus()


def revision_name(function: str, number: int) -> str:
    """`hello`, 1 -> `hello-00001`."""
    return f"{function}-{number:05d}"
