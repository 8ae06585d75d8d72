"""Bringing one instance up: its secrets and token, the launch, and the link to its process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping

import msgspec

from septet.control import launch
from septet.control.mirror import Mirror
from septet.control.settings import ControlSettings
from septet.model.errors import FunctionError, InvalidInput, NotFound, Unavailable
from septet.model.function import Revision
from septet.model.instance import InstanceInfo
from septet.model.meta import Meta, OwnerReference
from septet.model.objects import Environment, EnvironmentSpec, Secret, Token, TokenSpec
from septet.model.runtime import Runtime
from septet.ports.blobs import Vault
from septet.ports.clock import Clock
from septet.ports.contract import Contract, Link
from septet.ports.logs import LogLine, Logs, Stream
from septet.ports.sandbox import Sandbox
from septet.ports.store import Store

LOG_LINES = 50


class Birth:
    """Everything between a decision to start an instance and its open link."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        sandboxes: Mapping[str, Sandbox],
        contracts: Mapping[str, Contract],
        vault: Vault,
        logs: Logs,
        clock: Clock,
        runtimes: Mapping[str, Runtime],
        settings: ControlSettings,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._sandboxes = sandboxes
        self._contracts = contracts
        self._vault = vault
        self._logs = logs
        self._clock = clock
        self._runtimes = runtimes
        self._settings = settings

    def driver(self, revision: Revision) -> str:
        return revision.spec.template.sandbox or self._settings.sandbox

    def sandbox(self, driver: str) -> Sandbox:
        """The driver; InvalidInput when this platform does not run it."""
        if driver not in self._sandboxes:
            raise InvalidInput(
                f"there is no sandbox {driver!r} on this platform",
                hint=f"choose one of: {', '.join(sorted(self._sandboxes))}",
                details={"field": "sandbox"},
            )
        return self._sandboxes[driver]

    def runtime(self, revision: Revision) -> Runtime:
        """The runtime, which an environment may name; InvalidInput when it does not exist."""
        environment = self._environment(revision)
        name = (environment.runtime if environment else "") or revision.spec.template.runtime
        if name not in self._runtimes:
            raise InvalidInput(
                f"there is no runtime {name!r}",
                hint=f"choose one of: {', '.join(sorted(self._runtimes))}",
                details={"field": "runtime"},
            )
        return self._runtimes[name]

    def concurrency(self, revision: Revision) -> int:
        """Calls at a time in one instance; -1 means no limit."""
        return launch.concurrency(revision.spec.template, self.runtime(revision))

    async def launch(self, instance: str, revision: Revision, ahead: bool = False) -> InstanceInfo:
        """Asks the sandbox to start it, or with `ahead` a zygote of its function. Raises what the sandbox raises,
        InvalidInput, Corrupt."""
        driver = self.driver(revision)
        sandbox = self.sandbox(driver)
        template = revision.spec.template
        environment = self._environment(revision)
        if environment and environment.secrets:
            template = msgspec.structs.replace(template, secrets=(*environment.secrets, *template.secrets))
            spec = msgspec.structs.replace(revision.spec, template=template)
            revision = msgspec.structs.replace(revision, spec=spec)
        values = self.secrets(revision.meta.namespace, (use.name for use in template.secrets))
        request = launch.request(
            instance,
            revision,
            self.runtime(revision),
            values,
            token=await self._grant(instance, revision) if template.platform else "",
            environment=environment,
            port=self._settings.port,
            gateway=self._settings.gateway if sandbox.capabilities().gateway else 0,
            driver=driver,
        )
        return await sandbox.start(msgspec.structs.replace(request, ahead=ahead) if ahead else request)

    async def open(self, info: InstanceInfo, revision: Revision, on_lost: Callable[[], None]) -> Link:
        """Opens the link. A failure's `details["log"]` has the last lines of the instance's output."""
        limits = revision.spec.template.limits
        if info.protocol not in self._contracts:
            raise Unavailable(f"this platform speaks no {info.protocol} with instances")
        try:
            return await self._contracts[info.protocol].open(
                functools.partial(self.sandbox(info.driver).connect, info.id),
                info,
                revision.spec.template,
                deadline=asyncio.get_running_loop().time() + limits.start_timeout,
                on_lost=on_lost,
                on_log=functools.partial(self._log, info),
            )
        except FunctionError as error:
            error.details.setdefault("log", await self.output(info))
            raise

    def secrets(self, namespace: str, names: Iterable[str]) -> dict[str, dict[str, bytes]]:
        """The named secrets of a namespace in the clear, those that exist; Corrupt when one cannot be opened."""
        found: dict[str, dict[str, bytes]] = {}
        for name in names:
            secret = self._mirror.get(Secret, namespace, name)
            if secret is not None:
                found[name] = {
                    key: self._vault.open(sealed, f"{namespace}/{name}/{key}")
                    for key, sealed in secret.spec.sealed.items()
                }
        return found

    async def withdraw(self, instance: str, revision: Revision) -> None:
        """Ends the platform token of an instance that is gone."""
        if revision.spec.template.platform:
            with contextlib.suppress(NotFound):
                await self._store.delete("Token", "", token_name(instance))

    async def _grant(self, instance: str, revision: Revision) -> str:
        """A token for this instance and its namespace alone, for the verbs that the function asked for."""
        text = "sept_" + secrets.token_urlsafe(32)
        await self._store.create(
            Token(
                meta=Meta(
                    name=token_name(instance),
                    owner=OwnerReference(kind="Revision", name=revision.meta.name, uid=revision.meta.uid),
                    applied_by=revision.meta.applied_by,
                ),
                spec=TokenSpec(
                    sha256=hashlib.sha256(text.encode()).hexdigest(),
                    namespaces=(revision.meta.namespace,),
                    verbs=revision.spec.template.platform,
                    description=f"of an instance of {revision.meta.name}",
                ),
            )
        )
        return text

    def _environment(self, revision: Revision) -> EnvironmentSpec | None:
        name = revision.spec.template.environment
        if not name:
            return None
        environment = self._mirror.get(Environment, revision.meta.namespace, name)
        if environment is None:
            raise InvalidInput(f"there is no environment {name!r} in the namespace", details={"field": "environment"})
        return environment.spec

    def _log(self, info: InstanceInfo, invocation: str, stream: str, line: bytes) -> None:
        self._write(info, "stderr" if stream == "stderr" else "stdout", line.decode(errors="replace"), invocation)

    def say(self, info: InstanceInfo, text: str) -> None:
        """A line of the platform's own in the instance's log."""
        self._write(info, "platform", text)

    def _write(self, info: InstanceInfo, stream: Stream, text: str, invocation: str = "") -> None:
        self._logs.write(
            LogLine(
                at=self._clock.wall(),
                namespace=info.namespace,
                function=info.function,
                revision=info.revision,
                instance=info.id,
                stream=stream,
                text=text,
                invocation=invocation,
            )
        )

    async def output(self, info: InstanceInfo) -> str:
        """The last lines that the instance wrote; a log that cannot be read must not hide the real error."""
        try:
            lines = await self._logs.read(info.namespace, info.function, instance=info.id, tail=LOG_LINES)
        except Unavailable:
            return ""
        return "\n".join(line.text for line in lines)


def token_name(instance: str) -> str:
    return f"instance:{instance}"
