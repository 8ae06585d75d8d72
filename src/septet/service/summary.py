"""What `describe` shows: first whether the function can be called now, then everything else."""

from __future__ import annotations

from urllib.parse import quote

from septet.model.function import Function, Revision
from septet.model.instance import InstanceInfo
from septet.model.meta import Condition
from septet.model.objects import Route
from septet.service.commands import Summarise
from septet.service.context import Context
from septet.service.results import RevisionLine, Summary
from septet.service.revisions import revisions_of


async def summarise(context: Context, command: Summarise) -> Summary:
    namespace, name = command.namespace, command.name
    function = await context.get(Function, namespace, name)
    revisions = await revisions_of(context, function)
    await context.told(function, *revisions)
    instances = context.ports.fleet.instances(namespace, name)
    obstacle = context.ports.fleet.obstacle(namespace, name)
    able, answer = answer_of(function, revisions, instances, obstacle)
    routes = [route for route in await context.all(Route, namespace) if _leads(route, name)]
    return Summary(
        name=name,
        namespace=namespace,
        callable=able,
        answer=answer,
        urls=_urls(context.settings.base_url(), function, routes),
        runtime=function.spec.template.runtime,
        access=function.spec.access,
        limits=context.ports.fleet.node().limits,
        revisions=tuple(_line(function, revision) for revision in reversed(revisions)),
        instances=tuple(instances),
        conditions=function.status.conditions,
        frozen=sum(1 for instance in instances if instance.state == "frozen"),
        zygotes=context.ports.fleet.zygotes(namespace, name),
    )


def answer_of(
    function: Function, revisions: list[Revision], instances: list[InstanceInfo], obstacle: str
) -> tuple[bool, str]:
    """Whether it can be called now, and that in words: "yes, warm ...", "yes, frozen ...", "yes, cold ...",
    "no, because ..."."""
    if function.meta.deleting_since is not None:
        return False, "no, because it is being deleted"
    ready = {revision.meta.name for revision in revisions if revision.status.phase == "ready"}
    serving = {target.revision for target in function.status.traffic if target.percent} & ready
    if not serving:
        return False, f"no, because {_why_not(function, revisions)}"
    warm = sum(1 for i in instances if i.state == "ready" and i.revision in serving)
    newer = _newer(function)
    if warm:
        return True, f"yes, warm: {warm} {'instance is' if warm == 1 else 'instances are'} ready{newer}"
    if any(i.state == "frozen" and i.revision in serving for i in instances):
        return True, f"yes, frozen: an instance is kept without running, and the next call thaws it{newer}"
    if obstacle:
        return False, f"no, because {obstacle}"
    if any(i.state in ("starting", "running") and i.revision in serving for i in instances):
        return True, f"yes, cold: an instance is starting{newer}"
    return True, f"yes, cold: no instance runs now, and the first call starts one{newer}"


def _newer(function: Function) -> str:
    """What to add when the newest deploy is not what serves."""
    status = function.status
    if not status.latest_created or status.latest_created == status.latest_ready:
        return ""
    condition = _ready(function.status.conditions)
    if condition is not None and condition.status is False:
        return f"; {status.latest_created} failed: {condition.message or condition.reason}"
    return f"; {status.latest_created} is on its way"


def _why_not(function: Function, revisions: list[Revision]) -> str:
    condition = _ready(function.status.conditions)
    if condition is not None and condition.status is False:
        return condition.message or condition.reason or "its newest revision failed"
    if not revisions:
        return "its first revision has not been made yet"
    return f"its revision {revisions[-1].meta.name} is {revisions[-1].status.phase}"


def _ready(conditions: tuple[Condition, ...]) -> Condition | None:
    return next((condition for condition in conditions if condition.type == "Ready"), None)


def _line(function: Function, revision: Revision) -> RevisionLine:
    name = revision.meta.name
    targets = [target for target in function.status.traffic if target.revision == name]
    condition = next((c for c in revision.status.conditions if c.status is False and c.message), None)
    return RevisionLine(
        name=name,
        phase=revision.status.phase,
        percent=sum(target.percent for target in targets),
        tags=tuple(target.tag for target in targets if target.tag),
        created_at=revision.meta.created_at,
        message=condition.message if condition else "",
    )


def _leads(route: Route, function: str) -> bool:
    return any(target.function == function for target in route.spec.targets)


def _urls(base: str, function: Function, routes: list[Route]) -> tuple[str, ...]:
    """The function's own address, its tags', and those of the routes that lead to it."""
    own = f"{base}/fn/{quote(function.meta.namespace, safe='')}/{quote(function.meta.name, safe='')}"
    tags = [f"{own}@{target.tag}/" for target in function.spec.traffic if target.tag]
    scheme = base.partition("://")[0]
    led = [
        f"{scheme}://{match.host}{match.path}" if match.host else f"{base}{match.path}"
        for match in (route.spec.match for route in routes)
    ]
    return (f"{own}/", *tags, *led)
