"""Tokens: made once, shown once, kept as a hash. Nobody hands on more than they hold."""

from __future__ import annotations

import math

from septet.model.access import Caller
from septet.model.errors import Conflict, Forbidden, NotFound
from septet.model.meta import Meta
from septet.model.objects import Quota, Token, TokenSpec
from septet.policy import access
from septet.service import validation
from septet.service.authenticate import digest, new_token
from septet.service.bootstrap import ADMIN
from septet.service.commands import CreateToken, DeleteToken, GetToken, ListTokens
from septet.service.context import Context
from septet.service.listing import page_of
from septet.service.results import Listing, TokenCreated, TokenFacts, TokenView

RESERVED = ("anonymous", "platform")


def view(token: Token) -> TokenView:
    spec = token.spec
    return TokenView(
        meta=token.meta,
        spec=TokenFacts(
            namespaces=spec.namespaces,
            verbs=spec.verbs,
            expires_at=spec.expires_at,
            quota=spec.quota,
            description=spec.description,
        ),
    )


async def create_token(context: Context, command: CreateToken) -> TokenCreated:
    _check(context, command)
    _check_handed_on(context.caller, command)
    text = new_token()
    spec = TokenSpec(
        sha256=digest(text),
        namespaces=command.namespaces,
        verbs=command.verbs,
        expires_at=command.expires_at,
        quota=command.quota,
        description=command.description,
    )
    try:
        token = await context.create(Token(meta=Meta(name=command.name, applied_by=context.caller.account), spec=spec))
    except Conflict as error:
        raise Conflict(
            f"there is a token {command.name!r} already", hint="choose another name, or delete that one first"
        ) from error
    context.credentials.learn(token)
    await context.credentials.settled()
    return TokenCreated(token=text, object=view(token))


def _check(context: Context, command: CreateToken) -> None:
    validation.name_of("Token", command.name)
    if command.name in RESERVED or command.name.startswith("instance:"):
        validation.refuse("name", f"{command.name!r} is a name that the platform itself uses")
    if not 1 <= len(command.namespaces) <= 1000:
        validation.refuse("namespaces", "must name 1 to 1000 namespaces", 'or ["*"] for all')
    for name in command.namespaces:
        if name != "*":
            validation.name_of("Namespace", name)
    if not 1 <= len(command.verbs) <= 1000:
        validation.refuse("verbs", "must name 1 to 1000 verbs", 'for example ["functions:invoke"]')
    validation.verbs("verbs", command.verbs)
    validation.plain("description", command.description)
    validation.quota(command.quota)
    validation.number("expires_at", command.expires_at, 0, 1e11)
    if command.expires_at and command.expires_at <= context.ports.clock.wall():
        validation.refuse("expires_at", "is over already", "it is in seconds since the epoch; 0 means never")


def _check_handed_on(caller: Caller, command: CreateToken) -> None:
    """Namespaces were checked on the way in; verbs, time and quota are checked here. Raises Forbidden."""
    lacking = access.within(command.verbs, caller)
    if lacking:
        raise Forbidden(
            f"the token {caller.name!r} does not allow {', '.join(lacking)}, so it cannot give that to another",
            details={"field": "verbs"},
        )
    if caller.expires_at and (command.expires_at or math.inf) > caller.expires_at:
        raise Forbidden(
            f"the token {caller.name!r} expires before the new one would",
            hint="give the new one an `expires_at` that is no later",
            details={"field": "expires_at"},
        )
    for name in Quota.__struct_fields__:
        own, asked = getattr(caller.quota, name), getattr(command.quota, name)
        if own and (not asked or asked > own) and not (name == "burst" and not asked):
            raise Forbidden(
                f"the token {caller.name!r} is held to a quota of {own:g} {name}, and so is what it gives",
                hint=f"give the new one a quota of {name} that is no greater",
                details={"field": f"quota.{name}"},
            )


def _seen(context: Context, token: Token, verb: str) -> bool:
    """Whoever may do it in every namespace that the token reaches."""
    places = ["" if name == "*" else name for name in token.spec.namespaces] or [""]
    return all(context.may(verb, place) for place in places)


async def get_token(context: Context, command: GetToken) -> TokenView:
    return view(await _get(context, command.name, "tokens:read"))


async def _get(context: Context, name: str, verb: str) -> Token:
    """A token that the caller may not see is not there."""
    token = await context.get(Token, "", name)
    if not _seen(context, token, verb):
        raise NotFound(f"there is no token {name!r}", details={"kind": "Token", "name": name})
    return token


async def list_tokens(context: Context, command: ListTokens) -> Listing[TokenView]:
    page = await page_of(context, Token, None, {}, command.limit, command.cursor)
    seen = tuple(view(token) for token in page.items if _seen(context, token, "tokens:read"))
    return Listing(items=seen, cursor=page.cursor, version=page.version)


async def delete_token(context: Context, command: DeleteToken) -> TokenView:
    token = await _get(context, command.name, "tokens:write")
    if command.name == ADMIN:
        raise Conflict(
            "the admin's token is the operator's way in and cannot be deleted",
            hint="to change it, delete <data directory>/admin-token and start again",
            details={"reason": "state"},
        )
    version = command.resource_version
    deleted = await context.ports.store.delete("Token", "", command.name, resource_version=version)
    context.credentials.forget(token)
    await context.credentials.settled()
    assert isinstance(deleted, Token)
    return view(deleted)
