"""Functions: apply, read, delete; traffic, rollback, scale."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from septet.model.errors import Conflict, InvalidInput
from septet.model.function import Function, FunctionSpec, FunctionTemplate, Revision, TrafficTarget
from septet.model.meta import Meta
from septet.policy.quota import Usage, check
from septet.service import accounts, references, validation
from septet.service.commands import (
    ApplyFunction,
    DeleteFunction,
    GetFunction,
    ListFunctions,
    Rollback,
    Scale,
    SetTraffic,
)
from septet.service.context import Context
from septet.service.listing import page_of
from septet.service.plan import Wish, apply, check_alive, check_version
from septet.service.results import FunctionApplied, Listing


async def apply_function(context: Context, command: ApplyFunction) -> FunctionApplied:
    namespace, spec = command.namespace, command.spec
    validation.name_of("Function", command.name)
    if len(command.name.encode()) > 245:
        validation.refuse("name", "is longer than 245 bytes, so its revisions could not be named")
    validation.function_spec(spec, context.settings.runtimes, context.settings.sandboxes)
    validation.pairs("labels", command.labels or {})
    validation.pairs("annotations", command.annotations or {})
    if spec.template.network.mode == "egress":
        _check_egress(context, spec.template.sandbox)
    if spec.template.isolation == "shared-namespace":
        _check_shared(context, namespace, spec.template)
    owner = await references.live_namespace(context, namespace)
    await references.function_references(context, namespace, spec)
    accounts.check_build(context, spec.template.build, namespace, owner.spec.quota)

    async def before_write(known: Function | None) -> None:
        if known is None or known.spec.template.source != spec.template.source:
            await references.source_reference(context, namespace, spec.template.source)
        if known is None:
            functions = len(await context.all(Function, namespace))
            check(owner.spec.quota, Usage(functions=functions), Usage(functions=1), f"namespace {namespace!r}")
        await accounts.check_functions(context, known)
        await references.traffic_references(context, namespace, known, spec.traffic)

    outcome = await apply(
        context,
        Function(meta=Meta(name=command.name, namespace=namespace), spec=spec),
        Wish(
            command.labels,
            command.annotations,
            command.documents,
            command.resource_version,
            command.dry_run,
            applied_by=context.caller.account,
        ),
        lambda known: msgspec.structs.replace(known, spec=spec),
        before_write,
    )
    return FunctionApplied(action=outcome.action, changes=outcome.changes, function=outcome.obj)


def _check_shared(context: Context, namespace: str, template: FunctionTemplate) -> None:
    """Refused now what its driver would refuse at the first start."""
    if not {"*", namespace} & set(context.settings.shared_namespaces):
        validation.refuse(
            "isolation",
            f"shared-namespace is not allowed in namespace {namespace!r}",
            f"whoever runs the platform allows it: septet up --shared-namespace {namespace}",
        )
    if template.network.mode != "none":
        validation.refuse("isolation", "shared-namespace has no way out of its network", "set network.mode to none")
    runtime = context.settings.runtimes.get(template.runtime)
    if runtime is not None and runtime.protocol != "frames":
        validation.refuse(
            "isolation",
            f"shared-namespace is not for runtime {template.runtime!r}: servers of one tenant would meet at a port",
            "leave it at default",
        )


def _check_egress(context: Context, sandbox: str) -> None:
    """Refused now, in the words of the driver that will run it: else the first instance would fail, after a whole
    build."""
    missing = context.ports.fleet.egress_missing(sandbox)
    if missing:
        where = f"in the sandbox {sandbox!r} on this host" if sandbox else "on this host"
        raise InvalidInput(
            f"network mode egress does not work {where}: " + "; ".join(f"{c.name}: {c.detail}" for c in missing),
            hint="; ".join(c.fix for c in missing if c.fix) or "run `septet doctor`, or use network mode none",
            details={"field": "network"},
        )


async def get_function(context: Context, command: GetFunction) -> Function:
    function = await context.get(Function, command.namespace, command.name)
    await context.told(function)
    return function


async def list_functions(context: Context, command: ListFunctions) -> Listing[Function]:
    page = await page_of(context, Function, command.namespace, command.labels, command.limit, command.cursor)
    await context.told(*page.items)
    return page


async def delete_function(context: Context, command: DeleteFunction) -> Function:
    deleted = await context.ports.store.delete(
        "Function", command.namespace, command.name, resource_version=command.resource_version
    )
    assert isinstance(deleted, Function)
    return deleted


async def set_traffic(context: Context, command: SetTraffic) -> Function:
    validation.traffic(command.targets)
    if command.rollout is not None:
        validation.number("rollout", command.rollout, 0, validation.WEEK)

    async def wanted(function: Function) -> FunctionSpec:
        await references.traffic_references(context, command.namespace, function, command.targets)
        rollout = function.spec.rollout if command.rollout is None else command.rollout
        return msgspec.structs.replace(function.spec, traffic=command.targets, rollout=rollout)

    return await _change(context, command, wanted)


async def rollback(context: Context, command: Rollback) -> Function:
    """Tags stay where they are; the share alone moves, at once."""

    async def wanted(function: Function) -> FunctionSpec:
        name = command.revision or await _before(context, function)
        revision = await references.revision_of(context, command.namespace, function, name, "revision")
        if revision.status.phase != "ready":
            raise Conflict(
                f"{name!r} is {revision.status.phase}, not ready, so nothing can go back to it",
                hint="`septet revisions` shows which are ready",
                details={"reason": "state"},
            )
        tags = tuple(msgspec.structs.replace(target, percent=0) for target in function.spec.traffic if target.tag)
        return msgspec.structs.replace(function.spec, traffic=(TrafficTarget(percent=100, revision=name), *tags))

    return await _change(context, command, wanted)


async def scale(context: Context, command: Scale) -> Function:
    given = {name: value for name, value in msgspec.structs.asdict(command.change).items() if value is not None}

    async def wanted(function: Function) -> FunctionSpec:
        changed = msgspec.structs.replace(function.spec.template.scale, **given)
        validation.scale(changed)
        template = msgspec.structs.replace(function.spec.template, scale=changed)
        return msgspec.structs.replace(function.spec, template=template)

    return await _change(context, command, wanted)


async def _change(
    context: Context,
    command: SetTraffic | Rollback | Scale,
    wanted: Callable[[Function], Awaitable[FunctionSpec]],
) -> Function:
    """Writes a new spec made from the present one; again when a status came between and no version was named."""
    what = f"function {command.name!r}"
    for _ in range(5):
        function = await context.get(Function, command.namespace, command.name)
        check_alive(function.meta, what)
        check_version(function.meta, command.resource_version, what)
        try:
            return await context.update(msgspec.structs.replace(function, spec=await wanted(function)))
        except Conflict as error:
            if command.resource_version or error.details.get("reason") == "state":
                raise
    raise Conflict(f"{what} is being changed by others all the time", hint="try again", details={"reason": "version"})


async def _before(context: Context, function: Function) -> str:
    """The newest ready revision that is older than the one with the greatest share now."""
    revisions = {
        revision.meta.name: revision
        for revision in await context.all(Revision, function.meta.namespace)
        if revision.spec.function_uid == function.meta.uid
    }
    shares = [target for target in function.status.traffic if target.revision in revisions and target.percent]
    if not shares:
        raise Conflict(
            f"no revision of {function.meta.name!r} serves now, so there is none before it",
            details={"reason": "state"},
        )
    serving = max(shares, key=lambda target: (target.percent, revisions[target.revision].spec.number))
    number = revisions[serving.revision].spec.number
    older = [r for r in revisions.values() if r.spec.number < number and r.status.phase == "ready"]
    if not older:
        raise Conflict(
            f"there is no ready revision before {serving.revision!r}",
            hint="`septet revisions` shows what there is",
            details={"reason": "state"},
        )
    return max(older, key=lambda revision: revision.spec.number).meta.name
