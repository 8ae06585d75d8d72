"""From a revision to the request that starts an instance of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from septet.model.errors import InvalidInput
from septet.model.function import FunctionTemplate, Revision, SecretUse
from septet.model.objects import EnvironmentSpec
from septet.model.runtime import Runtime
from septet.ports.sandbox import Container, LaunchRequest, Volume

ROOT = "/function"
CODE = f"{ROOT}/code"
DEPS = f"{ROOT}/deps"
SECRETS = "/run/secrets"
TOKEN_FILE = "/run/septet/token"  # noqa: S105 - a path
LABEL_UID = "septet/revision-uid"
LABEL_DRIVER = "septet/sandbox"

Values = Mapping[str, Mapping[str, bytes]]
"""Secret name -> key -> value in the clear."""


def concurrency(template: FunctionTemplate, runtime: Runtime) -> int:
    """Calls at a time in one instance; -1 means no limit."""
    return template.limits.concurrency or runtime.concurrency


def request(
    instance: str,
    revision: Revision,
    runtime: Runtime,
    values: Values,
    *,
    token: str = "",
    environment: EnvironmentSpec | None = None,
    port: int = 8080,
    gateway: int = 0,
    driver: str = "",
) -> LaunchRequest:
    """Raises InvalidInput when the function names no start command but needs one, lacks a secret or its key, or
    a secret's key cannot be a variable."""
    template = revision.spec.template
    files = _secret_files(template.secrets, values)
    if token:
        files[TOKEN_FILE] = token.encode()
    container = Container(
        runtime=runtime.name,
        image=environment.image if environment else "",
        command=command(template, runtime),
        env=_environment(instance, revision, runtime, values, token, environment, port, gateway),
        files=files,
        volumes=(Volume(tree=revision.status.artifact, target=ROOT),) if revision.status.artifact else (),
        working_directory=_working_directory(template),
        limits=template.limits,
    )
    return LaunchRequest(
        id=instance,
        namespace=revision.meta.namespace,
        function=revision.spec.function,
        revision=revision.meta.name,
        protocol=runtime.protocol,
        port=port,
        gateway=gateway,
        network=template.network,
        isolation=template.isolation,
        containers=(container,),
        labels={**revision.meta.labels, LABEL_UID: revision.meta.uid, LABEL_DRIVER: driver},
    )


def command(template: FunctionTemplate, runtime: Runtime) -> tuple[str, ...]:
    """The start command; the driver, who knows the host, puts in `{interpreter}` and `{runtime}`."""
    if runtime.start_from_spec and not template.command:
        raise InvalidInput(
            f"a function of runtime {runtime.name!r} needs a start command",
            hint='set command, for example ["./server"]',
            details={"field": "command"},
        )
    words = template.command if runtime.start_from_spec else runtime.command
    if "{command}" in words:
        # A runtime whose shim runs what the function names, once for each call.
        at = words.index("{command}")
        words = (*words[:at], *template.command, *words[at + 1 :])
    handler = template.handler or runtime.handler
    return tuple(word.replace("{code}", CODE).replace("{deps}", DEPS).replace("{handler}", handler) for word in words)


def _working_directory(template: FunctionTemplate) -> str:
    asked = template.working_directory
    if not asked:
        return CODE
    return asked if asked.startswith("/") else f"{CODE}/{asked}"


def _environment(
    instance: str,
    revision: Revision,
    runtime: Runtime,
    values: Values,
    token: str,
    environment: EnvironmentSpec | None,
    port: int,
    gateway: int,
) -> dict[str, str]:
    """Later ones win: the runtime's, the environment object's, the secrets', the function's, the platform's."""
    template = revision.spec.template
    env = {name: value.replace("{code}", CODE).replace("{deps}", DEPS) for name, value in runtime.env.items()}
    env |= environment.env if environment else {}
    env |= _secret_variables(template.secrets, values)
    env |= template.env
    env |= {
        "PORT": str(port),
        "SEPTET_NAMESPACE": revision.meta.namespace,
        "SEPTET_FUNCTION": revision.spec.function,
        "SEPTET_REVISION": revision.meta.name,
        "SEPTET_INSTANCE": instance,
        "SEPTET_HANDLER": template.handler or runtime.handler,
        "SEPTET_CONCURRENCY": str(concurrency(template, runtime)),
    }
    if gateway:
        env["SEPTET_GATEWAY"] = f"http://127.0.0.1:{gateway}"
    if token:
        env["SEPTET_TOKEN_FILE"] = TOKEN_FILE
    return env


def _used(use: SecretUse, values: Values) -> dict[str, bytes]:
    """The keys of a secret that the function sees."""
    if use.name not in values:
        raise InvalidInput(
            f"there is no secret {use.name!r} in the namespace",
            hint=f"create it: septet secret set {use.name} KEY=VALUE",
            details={"field": "secrets"},
        )
    held = values[use.name]
    missing = [key for key in use.keys if key not in held]
    if missing:
        raise InvalidInput(
            f"secret {use.name!r} has no key {missing[0]!r}", hint="add the key to it", details={"field": "secrets"}
        )
    return {key: held[key] for key in (use.keys or held)}


def _secret_files(uses: tuple[SecretUse, ...], values: Values) -> dict[str, bytes]:
    return {
        f"{SECRETS}/{use.name}/{key}": value for use in uses if use.files for key, value in _used(use, values).items()
    }


def _secret_variables(uses: tuple[SecretUse, ...], values: Values) -> dict[str, str]:
    found: dict[str, str] = {}
    for use in uses:
        if use.env:
            for key, value in _used(use, values).items():
                found[use.prefix + key] = variable(use.name, key, value)
    return found


def variable(secret: str, key: str, value: bytes) -> str:
    """A secret's value as an environment variable; InvalidInput when it cannot be one."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or not key or "=" in key:
        raise InvalidInput(
            f"key {key!r} of secret {secret!r} cannot be an environment variable",
            hint="use it as a file, or store text without zero bytes under a plain name",
            details={"field": "secrets"},
        )
    return text
