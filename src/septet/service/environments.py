"""Environments: what functions are built and run in."""

from __future__ import annotations

import msgspec

from septet.model.errors import Conflict
from septet.model.function import Function
from septet.model.meta import Meta
from septet.model.objects import Environment, EnvironmentSpec
from septet.service import references, validation
from septet.service.commands import ApplyEnvironment, DeleteEnvironment, GetEnvironment, ListEnvironments
from septet.service.context import Context
from septet.service.listing import page_of
from septet.service.plan import Wish, apply
from septet.service.results import EnvironmentApplied, Listing


async def apply_environment(context: Context, command: ApplyEnvironment) -> EnvironmentApplied:
    validation.name_of("Environment", command.name)
    _check(context, command.spec)
    validation.pairs("labels", command.labels or {})
    validation.pairs("annotations", command.annotations or {})
    await references.live_namespace(context, command.namespace)
    await references.secret_references(context, command.namespace, "secrets", command.spec.secrets)
    outcome = await apply(
        context,
        Environment(meta=Meta(name=command.name, namespace=command.namespace), spec=command.spec),
        Wish(command.labels, command.annotations, None, command.resource_version, command.dry_run),
        lambda known: msgspec.structs.replace(known, spec=command.spec),
    )
    return EnvironmentApplied(action=outcome.action, changes=outcome.changes, environment=outcome.obj)


def _check(context: Context, spec: EnvironmentSpec) -> None:
    if bool(spec.runtime) == bool(spec.image):
        validation.refuse("runtime", "an environment has either a runtime or an image")
    if spec.runtime:
        validation.choose("runtime", spec.runtime, context.settings.runtimes)
    validation.plain("image", spec.image, 1024)
    validation.plain("builder", spec.builder, 1024)
    validation.command("build_command", spec.build_command)
    validation.number("pool", spec.pool, 0, 1000)
    validation.plain("contract", spec.contract, 100)
    validation.number("contract_version", spec.contract_version, 1, 100)
    validation.variables("env", spec.env)
    validation.secret_uses("secrets", spec.secrets)


async def get_environment(context: Context, command: GetEnvironment) -> Environment:
    return await context.get(Environment, command.namespace, command.name)


async def list_environments(context: Context, command: ListEnvironments) -> Listing[Environment]:
    return await page_of(context, Environment, command.namespace, command.labels, command.limit, command.cursor)


async def delete_environment(context: Context, command: DeleteEnvironment) -> Environment:
    for function in await context.all(Function, command.namespace):
        if function.spec.template.environment == command.name:
            raise Conflict(
                f"environment {command.name!r} is still used by function {function.meta.name!r}",
                hint="deploy that in another environment first",
                details={"reason": "state"},
            )
    deleted = await context.ports.store.delete(
        "Environment", command.namespace, command.name, resource_version=command.resource_version
    )
    assert isinstance(deleted, Environment)
    return deleted
