"""What objects may hold: ranges, names, sizes. Every refusal names the field and the rule."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from typing import NoReturn

from septet.model.errors import InvalidInput
from septet.model.function import FunctionSpec, FunctionTemplate, Limits, Network, Scale, SecretUse, TrafficTarget
from septet.model.meta import check_name
from septet.model.objects import Quota

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_VERB = re.compile(r"\*|(\*|[a-z][a-z-]*):(\*|[a-z][a-z-]*)")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")
RESERVED_VARIABLES = ("PORT", "SEPTET_")
POLICIES = ("concurrency", "rps", "fixed")
TEXT_MAX = 128 * 1024
PAIRS_MAX = 1000
WEEK = 7 * 86400.0


def refuse(field: str, message: str, hint: str = "") -> NoReturn:
    raise InvalidInput(f"{field}: {message}", hint=hint, details={"field": field})


def nearest(word: str, known: Collection[str]) -> str:
    """A hint: the known word nearest to `word`, or all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"


def choose(field: str, word: str, known: Collection[str]) -> None:
    if word not in known:
        refuse(field, f"{word[:100]!r} is not known here", nearest(word, known))


def number(field: str, value: float, least: float, most: float) -> None:
    if not math.isfinite(value) or not least <= value <= most:
        refuse(field, f"must be from {least:g} to {most:g}, not {value:g}")


def plain(field: str, text: str, most: int = 4096) -> None:
    """Text without control characters."""
    if len(text) > most:
        refuse(field, f"is longer than {most} characters")
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in text):
        refuse(field, "holds a control character")


def name_of(kind: str, name: str) -> None:
    """An object's name: as the model has it, and what can stand in a path, a log line and a file name."""
    check_name(name)
    if kind in ("Namespace", "Function", "Secret", "Environment", "Route") and "@" in name:
        refuse("name", f"{name!r} holds an @, which begins a tag or a revision in a call's path")
    plain("name", name)


def pairs(field: str, values: Mapping[str, str]) -> None:
    """Labels and annotations."""
    if len(values) > PAIRS_MAX:
        refuse(field, f"has more than {PAIRS_MAX} entries")
    for key, value in values.items():
        plain(field, key, 317)
        if not key:
            refuse(field, "has an empty key")
        if len(value) > TEXT_MAX:
            refuse(f"{field}.{key}", f"is longer than {TEXT_MAX} characters")


def variables(field: str, env: Mapping[str, str]) -> None:
    """Environment variables: names as POSIX has them, and none that the platform sets itself."""
    if len(env) > PAIRS_MAX:
        refuse(field, f"has more than {PAIRS_MAX} variables")
    for key, value in env.items():
        if not _VARIABLE.fullmatch(key):
            refuse(field, f"{key[:100]!r} is no name of a variable", "letters, digits and underscores, no digit first")
        if key == RESERVED_VARIABLES[0] or key.startswith(RESERVED_VARIABLES[1]):
            refuse(f"{field}.{key}", "is set by the platform", "choose another name")
        if "\0" in value or len(value.encode("utf-8", "replace")) > TEXT_MAX:
            refuse(f"{field}.{key}", f"must have no NUL and at most {TEXT_MAX} bytes")


def digest(field: str, text: str) -> None:
    if not _DIGEST.fullmatch(text):
        refuse(field, f"{text[:80]!r} is no digest", "it is `sha256:` and 64 hex digits, as the upload answered")


def verbs(field: str, asked: Collection[str]) -> None:
    for verb in asked:
        if not _VERB.fullmatch(verb) or len(verb) > 100:
            refuse(field, f"{verb[:100]!r} is no verb", 'it is "<resource>:<action>", "<resource>:*" or "*"')


def function_spec(spec: FunctionSpec, runtimes: Collection[str], sandboxes: Collection[str]) -> None:
    template(spec.template, runtimes, sandboxes)
    traffic(spec.traffic)
    number("rollout", spec.rollout, 0, WEEK)
    number("retain", spec.retain, 0, 1000)


def template(value: FunctionTemplate, runtimes: Collection[str], sandboxes: Collection[str]) -> None:
    if value.runtime or not value.environment:
        choose("runtime", value.runtime, runtimes)
    if value.source:
        digest("source", value.source)
    plain("handler", value.handler, 1024)
    command("command", value.command)
    working_directory(value.working_directory)
    variables("env", value.env)
    secret_uses("secrets", value.secrets)
    limits(value.limits)
    scale(value.scale)
    network(value.network)
    plain("readiness.path", value.readiness.path, 2048)
    if value.readiness.path and not value.readiness.path.startswith("/"):
        refuse("readiness.path", "begins with a slash")
    number("readiness.period", value.readiness.period, 0.01, 60)
    number("readiness.timeout", value.readiness.timeout, 0.01, 600)
    variables("build.env", value.build.env)
    number("build.timeout", value.build.timeout, 1, 86400)
    if value.build.memory:
        number("build.memory", value.build.memory, 64, 1024 * 1024)
    if value.build.secret:
        name_of("Secret", value.build.secret)
    if value.environment:
        name_of("Environment", value.environment)
    if value.sandbox:
        choose("sandbox", value.sandbox, sandboxes)
    verbs("platform", value.platform)


def command(field: str, words: tuple[str, ...]) -> None:
    if len(words) > 1000 or sum(len(word) for word in words) > TEXT_MAX:
        refuse(field, f"has more than 1000 words or {TEXT_MAX} characters")
    if any("\0" in word for word in words):
        refuse(field, "holds a NUL")
    if words and not words[0]:
        refuse(field, "has an empty first word")


def working_directory(path: str) -> None:
    plain("working_directory", path, 1024)
    if path.startswith("/") or ".." in path.split("/"):
        refuse("working_directory", "must be a folder inside the source", "for example `app`")


def secret_uses(field: str, uses: tuple[SecretUse, ...]) -> None:
    seen: set[str] = set()
    for index, use in enumerate(uses):
        where = f"{field}[{index}]"
        name_of("Secret", use.name)
        if use.name in seen:
            refuse(where, f"names the secret {use.name!r} again")
        seen.add(use.name)
        if use.prefix and not _VARIABLE.fullmatch(use.prefix):
            refuse(f"{where}.prefix", f"{use.prefix[:100]!r} cannot begin a variable's name")
        for key in use.keys:
            secret_key(f"{where}.keys", key)


def secret_key(field: str, key: str) -> None:
    """A key is a file's name in the function."""
    if not _SEGMENT.fullmatch(key) or key in (".", "..") or len(key) > 253:
        refuse(field, f"{key[:100]!r} is no key of a secret", "letters, digits, dot, dash, underscore")


def limits(value: Limits) -> None:
    number("limits.memory", value.memory, 16, 1024 * 1024)
    number("limits.cpu", value.cpu, 0.01, 1024)
    number("limits.pids", value.pids, 1, 65536)
    number("limits.tmp", value.tmp, 1, 1024 * 1024)
    number("limits.timeout", value.timeout, 0.001, 86400)
    number("limits.start_timeout", value.start_timeout, 0.1, 3600)
    number("limits.concurrency", value.concurrency, -1, 100_000)
    number("limits.request_body", value.request_body, 0, 1 << 50)
    number("limits.queue", value.queue, 0, 1_000_000)
    number("limits.queue_timeout", value.queue_timeout, 0, 86400)


def scale(value: Scale) -> None:
    number("scale.min", value.min, 0, 10_000)
    number("scale.max", value.max, 0, 10_000)
    number("scale.initial", value.initial, 0, 10_000)
    choose("scale.policy", value.policy, POLICIES)
    number("scale.target", value.target, 0, 1_000_000)
    number("scale.utilization", value.utilization, 0.01, 1)
    number("scale.window", value.window, 6, 3600)
    number("scale.panic_window_percent", value.panic_window_percent, 1, 100)
    number("scale.panic_threshold_percent", value.panic_threshold_percent, 110, 1000)
    number("scale.max_up_rate", value.max_up_rate, 1.01, 1_000_000)
    number("scale.max_down_rate", value.max_down_rate, 1.01, 1_000_000)
    number("scale.down_delay", value.down_delay, 0, 3600)
    number("scale.grace", value.grace, 0, 86400)
    if isinstance(value.keep_alive, int | float):
        number("scale.keep_alive", value.keep_alive, 0, 7 * 86400)
    if value.max and value.min > value.max:
        refuse("scale.min", f"{value.min} is more than scale.max {value.max}")


def network(value: Network) -> None:
    if value.allow and value.mode == "none":
        refuse("network.allow", "is for the mode `egress`", "set network.mode to egress, or leave allow out")
    if len(value.allow) > PAIRS_MAX:
        refuse("network.allow", f"has more than {PAIRS_MAX} entries")
    for entry in value.allow:
        plain("network.allow", entry, 300)
        if not entry or any(c.isspace() for c in entry):
            refuse("network.allow", f"{entry!r} is neither a host nor a network", "host, host:port, cidr or cidr:port")


def traffic(targets: tuple[TrafficTarget, ...]) -> None:
    """Shares that add up to 100, and tags that each stand for one target."""
    if not 1 <= len(targets) <= 100:
        refuse("traffic", f"has 1 to 100 targets, not {len(targets)}")
    tags: set[str] = set()
    for index, target in enumerate(targets):
        number(f"traffic[{index}].percent", target.percent, 0, 100)
        if target.tag:
            if not _TAG.fullmatch(target.tag):
                refuse(f"traffic[{index}].tag", f"{target.tag[:80]!r} is no tag", "letters, digits, dot, dash")
            if target.tag in tags:
                refuse(f"traffic[{index}].tag", f"{target.tag!r} is used twice")
            tags.add(target.tag)
        if target.percent == 0 and not target.tag:
            refuse(f"traffic[{index}]", "has neither a share nor a tag", "leave it out")
    total = sum(target.percent for target in targets)
    if total != 100:
        refuse("traffic", f"the shares add up to {total}, not to 100")


def quota(value: Quota) -> None:
    for name in value.__struct_fields__:
        number(f"quota.{name}", getattr(value, name), 0, 1e12)
