"""Secrets: values go in, are sealed at once, and never come out."""

from __future__ import annotations

import hmac

import msgspec

from septet.model.errors import Conflict, Corrupt
from septet.model.function import Function, Revision, SecretUse
from septet.model.meta import Meta
from septet.model.objects import Environment, Secret, SecretSpec
from septet.service import references, validation
from septet.service.commands import ApplySecret, DeleteSecret, GetSecret, ListSecrets
from septet.service.context import Context
from septet.service.listing import page_of
from septet.service.plan import Wish, apply
from septet.service.results import FieldChange, Listing, SecretApplied, SecretView

KEYS_MOST = 256
VALUE_MOST = 512 * 1024
TOTAL_MOST = 1024 * 1024


def view(secret: Secret) -> SecretView:
    return SecretView(meta=secret.meta, keys=tuple(sorted(secret.spec.sealed)))


async def apply_secret(context: Context, command: ApplySecret) -> SecretApplied:
    namespace, name = command.namespace, command.name
    validation.name_of("Secret", name)
    _check(command.data)
    validation.pairs("labels", command.labels or {})
    validation.pairs("annotations", command.annotations or {})
    await references.live_namespace(context, namespace)

    def sealed(known: Secret) -> Secret:
        kept = known.spec.sealed
        values = {
            key: kept[key]
            if _same(context, kept.get(key), value, f"{namespace}/{name}/{key}")
            else context.ports.vault.seal(value, f"{namespace}/{name}/{key}")
            for key, value in command.data.items()
        }
        return msgspec.structs.replace(known, spec=SecretSpec(sealed=values))

    outcome = await apply(
        context,
        sealed(Secret(meta=Meta(name=name, namespace=namespace))),
        Wish(command.labels, command.annotations, None, command.resource_version, command.dry_run),
        sealed,
    )
    return SecretApplied(
        action=outcome.action, changes=tuple(_masked(change) for change in outcome.changes), secret=view(outcome.obj)
    )


def _check(data: dict[str, bytes]) -> None:
    if not 1 <= len(data) <= KEYS_MOST:
        validation.refuse("data", f"has 1 to {KEYS_MOST} keys, not {len(data)}")
    for key, value in data.items():
        validation.secret_key("data", key)
        if len(value) > VALUE_MOST:
            validation.refuse(f"data.{key}", f"is longer than {VALUE_MOST} bytes")
    if sum(len(value) for value in data.values()) > TOTAL_MOST:
        validation.refuse("data", f"holds more than {TOTAL_MOST} bytes in all")


def _same(context: Context, sealed: str | None, value: bytes, place: str) -> bool:
    """Whether what is kept opens to this value: then it stays, so that an equal apply writes nothing."""
    if sealed is None:
        return False
    try:
        return hmac.compare_digest(context.ports.vault.open(sealed, place), value)
    except Corrupt:
        return False


def _masked(change: FieldChange) -> FieldChange:
    if not change.field.startswith("data."):
        return change
    return FieldChange(
        field=change.field,
        old=None if change.old is None else "(a value)",
        new=None if change.new is None else "(a new value)",
    )


async def get_secret(context: Context, command: GetSecret) -> SecretView:
    return view(await context.get(Secret, command.namespace, command.name))


async def list_secrets(context: Context, command: ListSecrets) -> Listing[SecretView]:
    page = await page_of(context, Secret, command.namespace, command.labels, command.limit, command.cursor)
    return Listing(items=tuple(view(secret) for secret in page.items), cursor=page.cursor, version=page.version)


async def delete_secret(context: Context, command: DeleteSecret) -> SecretView:
    user = await _user(context, command.namespace, command.name)
    if user:
        raise Conflict(
            f"secret {command.name!r} is still used by {user}",
            hint="deploy that without the secret first",
            details={"reason": "state"},
        )
    deleted = await context.ports.store.delete(
        "Secret", command.namespace, command.name, resource_version=command.resource_version
    )
    assert isinstance(deleted, Secret)
    return view(deleted)


async def _user(context: Context, namespace: str, name: str) -> str:
    """What could not start any more without the secret. Revisions out of use do not keep it."""
    for function in await context.all(Function, namespace):
        template = function.spec.template
        if _uses(template.secrets, name) or template.build.secret == name:
            return f"function {function.meta.name!r}"
        serving = {target.revision for target in function.status.traffic}
        for revision in await context.all(Revision, namespace):
            if revision.meta.name in serving and _uses(revision.spec.template.secrets, name):
                return f"revision {revision.meta.name!r}"
    for environment in await context.all(Environment, namespace):
        if _uses(environment.spec.secrets, name):
            return f"environment {environment.meta.name!r}"
    return ""


def _uses(uses: tuple[SecretUse, ...], name: str) -> bool:
    return any(use.name == name for use in uses)
