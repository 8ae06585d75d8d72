"""References from one object to another: always by name alone, always inside the object's own namespace."""

from __future__ import annotations

from septet.model.errors import InvalidInput, NotFound
from septet.model.function import Function, FunctionSpec, FunctionTemplate, Revision, SecretUse, TrafficTarget
from septet.model.objects import Environment, Namespace, RouteTarget, Secret
from septet.policy import access
from septet.service.context import Context
from septet.service.plan import check_alive


async def live_namespace(context: Context, namespace: str) -> Namespace:
    """The namespace to write into; NotFound, or Conflict while it is being deleted."""
    try:
        found = await context.get(Namespace, "", namespace)
    except NotFound as error:
        raise NotFound(
            f"there is no namespace {namespace!r}",
            hint=f"make it first: `septet namespace create {namespace}`",
            details={"kind": "Namespace", "name": namespace},
        ) from error
    check_alive(found.meta, f"namespace {namespace!r}")
    return found


async def function_references(context: Context, namespace: str, spec: FunctionSpec) -> None:
    """Secrets, environment, build secret, and platform verbs. Raises InvalidInput naming the field."""
    template = spec.template
    await secret_references(context, namespace, "secrets", template.secrets)
    if template.build.secret:
        await _secret(context, namespace, "build.secret", template.build.secret)
    if template.environment:
        await _exists(context, Environment, namespace, "environment", template.environment)
    granted(context, template)


async def secret_references(context: Context, namespace: str, field: str, uses: tuple[SecretUse, ...]) -> None:
    for index, use in enumerate(uses):
        secret = await _secret(context, namespace, f"{field}[{index}].name", use.name)
        for key in use.keys:
            if key not in secret.spec.sealed:
                raise _missing(f"{field}[{index}].keys", f"key {key!r} in the secret {use.name!r}", namespace)


def granted(context: Context, template: FunctionTemplate) -> None:
    """A function gets no verb that the one who deploys it does not hold."""
    lacking = access.within(template.platform, context.caller)
    if lacking:
        raise InvalidInput(
            f"platform: the token {context.caller.name!r} does not allow {', '.join(lacking)}, "
            "so it cannot give that to a function",
            hint="leave it out, or deploy with a token that allows it",
            details={"field": "platform"},
        )


async def source_reference(context: Context, namespace: str, digest: str) -> None:
    """The bytes must be there, and be this namespace's."""
    if not digest:
        return
    if await context.claims.holds(namespace, digest):
        try:
            await context.ports.blobs.size(digest)
        except NotFound:
            pass
        else:
            return
    raise InvalidInput(
        f"source: {digest} has not been uploaded to namespace {namespace!r}",
        hint=f"upload the archive first: POST /septet/v1/namespaces/{namespace}/blobs",
        details={"field": "source"},
    )


async def traffic_references(
    context: Context, namespace: str, function: Function | None, targets: tuple[TrafficTarget, ...]
) -> None:
    """Every revision named is one of this very function's, and was neither given up nor taken away."""
    for index, target in enumerate(targets):
        if target.revision:
            await revision_of(context, namespace, function, target.revision, f"traffic[{index}].revision")


async def revision_of(context: Context, namespace: str, function: Function | None, name: str, field: str) -> Revision:
    try:
        revision = await context.get(Revision, namespace, name)
    except NotFound:
        revision = None
    if revision is None or function is None or revision.spec.function_uid != function.meta.uid:
        whose = f"of function {function.meta.name!r}" if function else "yet: the function is new"
        raise InvalidInput(
            f"{field}: there is no revision {name!r} {whose}",
            hint="`septet revisions` lists them; an empty name follows the latest",
            details={"field": field},
        )
    if revision.status.phase in ("failed", "retired"):
        raise InvalidInput(
            f"{field}: {name!r} is {revision.status.phase} and cannot take traffic",
            details={"field": field},
            hint="choose a ready one",
        )
    return revision


async def route_references(context: Context, namespace: str, targets: tuple[RouteTarget, ...]) -> None:
    for index, target in enumerate(targets):
        function = await _exists(context, Function, namespace, f"targets[{index}].function", target.function)
        assert isinstance(function, Function)
        if target.revision:
            await revision_of(context, namespace, function, target.revision, f"targets[{index}].revision")
        if target.tag and target.tag not in {share.tag for share in function.spec.traffic}:
            raise _missing(f"targets[{index}].tag", f"tag {target.tag!r} of function {target.function!r}", namespace)


async def _secret(context: Context, namespace: str, field: str, name: str) -> Secret:
    found = await _exists(context, Secret, namespace, field, name)
    assert isinstance(found, Secret)
    return found


async def _exists(
    context: Context, kind: type[Secret | Environment | Function], namespace: str, field: str, name: str
) -> Secret | Environment | Function:
    try:
        return await context.get(kind, namespace, name)
    except NotFound as error:
        raise _missing(field, f"{kind.__name__.lower()} {name!r}", namespace) from error


def _missing(field: str, what: str, namespace: str) -> InvalidInput:
    return InvalidInput(
        f"{field}: there is no {what} in namespace {namespace!r}",
        hint="make it first; what is in other namespaces cannot be named",
        details={"field": field},
    )
