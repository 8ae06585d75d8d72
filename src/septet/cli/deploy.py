"""`septet deploy`: plan, upload what is new, apply what changed, wait until it is ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from septet.cli.failures import Exit, Failure
from septet.cli.options import Session, complete_functions, parse_duration, with_output, with_session
from septet.cli.output import note, show_list, style
from septet.cli.pack import Package, pack
from septet.cli.project import FILE_NAME, FunctionEntry, LoadedProject, Project, RouteEntry, read_project
from septet.cli.rollout import wait_ready
from septet.model.function import Limits, Network, Scale


@dataclass
class Step:
    """One object of the plan. `package` is the packed source of a function, when it has any."""

    kind: str
    name: str
    body: dict[str, Any]
    package: Package | None
    action: str = ""
    changes: list[str] | None = None
    applied: dict[str, Any] | None = None
    failure: Failure | None = None


@click.command(
    epilog="\b\nExamples:\n  septet deploy\n  septet deploy hello --dry-run\n"
    "  septet deploy hello --runtime python --source ./hello --env GREETING=hi --memory 256"
)
@click.argument("names", nargs=-1, shell_complete=complete_functions)
@click.option(
    "-f", "--file", type=click.Path(path_type=Path), default=Path(FILE_NAME), show_default=True, help="What to deploy."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is ready.  [default: wait]")
@click.option("--timeout", default="10m", show_default=True, metavar="TIME", help="How long to wait.")
@click.option("--runtime", metavar="NAME", help="Deploy one function from flags, without septet.yaml.")
@click.option(
    "--source", type=click.Path(path_type=Path), help="With --runtime: folder, file, zip or tar.  [default: .]"
)
@click.option("--handler", default="", help="With --runtime: what to call in the source.")
@click.option("--command", "start", default="", metavar="LINE", help="With --runtime: the start command.")
@click.option("--env", "env", multiple=True, metavar="KEY=VALUE", help="With --runtime: a variable; repeatable.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="With --runtime: a secret; repeatable.")
@click.option("--memory", type=int, metavar="MIB", help="With --runtime: memory of an instance.")
@click.option("--call-timeout", metavar="TIME", help="With --runtime: how long one call may take.")
@click.option("--concurrency", type=int, help="With --runtime: calls at a time in one instance.")
@click.option("--min", "minimum", type=int, help="With --runtime: fewest instances.")
@click.option("--max", "maximum", type=int, help="With --runtime: most instances.")
@click.option("--egress", is_flag=True, help="With --runtime: let it reach the network.")
@click.option("--public", is_flag=True, help="With --runtime: calls need no token.")
@with_output
@with_session
def command(
    session: Session,
    names: tuple[str, ...],
    file: Path,
    dry_run: bool,
    wait: bool,
    timeout: str,
    form: str,
    **flags: Any,
) -> None:
    """Create or update functions from septet.yaml, or one from flags.

    Only what changed is applied, and only sources the platform does not have are uploaded. Traffic moves when
    the new revision is ready; when it does not get ready, the old one keeps serving and the exit code is 1.
    """
    patience = parse_duration(timeout)
    loaded = from_flags(names, flags) if flags["runtime"] else select(read_project(file), names, flags)
    if loaded.project.namespace and not click.get_current_context().params.get("namespace"):
        session = Session(session.client, loaded.project.namespace)
    steps = prepare(loaded)
    try:
        plan(session, steps)
        show_plan(steps, as_data=dry_run and form == "table")
        if not dry_run:
            apply(session, steps)
    finally:
        for step in steps:
            if step.package:
                step.package.close()
    if not dry_run and wait:
        wait_all(session, steps, patience)
    if not (dry_run and form == "table"):
        results = [result(session, step) for step in steps if not step.failure]
        columns = {"NAME": lambda r: r["name"], "ACTION": lambda r: r["action"], "URL": lambda r: r["url"]}
        show_list(results, form, columns, empty="")
    report(steps)


def from_flags(names: Sequence[str], flags: dict[str, Any]) -> LoadedProject:
    """A project of one function, as the flags describe it."""
    import shlex

    if len(names) != 1:
        raise Failure(
            "--runtime deploys one function", hint="name it: `septet deploy NAME --runtime ...`", code=Exit.USAGE
        )
    limits = {"memory": flags["memory"], "concurrency": flags["concurrency"]}
    if flags["call_timeout"]:
        limits["timeout"] = parse_duration(flags["call_timeout"])
    entry = FunctionEntry(
        runtime=flags["runtime"],
        source=str(flags["source"] or Path()),
        handler=flags["handler"],
        command=tuple(shlex.split(flags["start"])),
        env=dict(key_value(pair, "--env") for pair in flags["env"]),
        secrets=flags["secrets"],
        limits=Limits(**{key: value for key, value in limits.items() if value is not None}),
        scale=Scale(min=flags["minimum"] or 0, max=flags["maximum"] or 0),
        network=Network(mode="egress" if flags["egress"] else "none"),
        access="public" if flags["public"] else "token",
    )
    return LoadedProject(Project(functions={names[0]: entry}), Path())


def key_value(pair: str, what: str) -> tuple[str, str]:
    """KEY=VALUE in two; Failure(USAGE) without a key or a "="."""
    key, separator, value = pair.partition("=")
    if not key or not separator:
        raise Failure(f"{what} wants KEY=VALUE, not {pair!r}", code=Exit.USAGE)
    return key, value


def select(loaded: LoadedProject, names: Sequence[str], flags: dict[str, Any]) -> LoadedProject:
    """The named functions of the file, with the routes only when all are deployed."""
    given = [option for option, value in flags.items() if value not in (None, "", (), False)]
    if given:
        raise Failure(
            f"--{given[0].replace('_', '-')} goes with --runtime",
            hint="with septet.yaml, write it there",
            code=Exit.USAGE,
        )
    project = loaded.project
    if not project.functions and not project.routes:
        raise Failure("the file has no functions", code=Exit.USAGE)
    if not names:
        return loaded
    for name in names:
        if name not in project.functions:
            raise Failure(
                f"no function {name!r} in the file", hint=f"there are: {', '.join(project.functions)}", code=Exit.USAGE
            )
    chosen = {name: project.functions[name] for name in names}
    return LoadedProject(Project(functions=chosen, namespace=project.namespace), loaded.folder)


def prepare(loaded: LoadedProject) -> list[Step]:
    """Packs the sources and makes the bodies to send, functions first because routes name them."""
    steps: list[Step] = []
    for name, entry in loaded.project.functions.items():
        package = pack(loaded.folder / entry.source) if entry.source else None
        body = msgspec.to_builtins(entry.spec(package.digest if package else ""))
        steps.append(Step("functions", name, {"spec": body, **words(entry)}, package))
    for name, route in loaded.project.routes.items():
        steps.append(Step("routes", name, {"spec": msgspec.to_builtins(route.spec()), **words(route)}, None))
    return steps


def words(entry: FunctionEntry | RouteEntry) -> dict[str, Any]:
    return {"labels": entry.labels, "annotations": entry.annotations}


def plan(session: Session, steps: Sequence[Step]) -> None:
    """Asks the platform what each object would become; nothing is changed."""
    for step in steps:
        answer = session.client.put(session.path(step.kind, step.name), step.body, dry_run="true")
        step.action = answer["action"]
        step.changes = [change_line(change) for change in answer.get("changes", [])]


def change_line(change: Any) -> str:
    """One change as a line: `limits.memory: 128 -> 256`."""
    if not isinstance(change, dict):
        return str(change)
    old, new = (shorten(change.get(key)) for key in ("old", "new"))
    return f"{change['field']}: {old} -> {new}"


def shorten(value: object) -> str:
    text = "-" if value in (None, "") else str(value)
    if text.startswith("sha256:"):
        return text[:19]
    return text if len(text) <= 60 else text[:57] + "..."


def show_plan(steps: Sequence[Step], *, as_data: bool) -> None:
    """The plan on standard output when it is what was asked for, else on standard error."""
    signs = {
        "created": ("+", "create", "green"),
        "updated": ("~", "update", "yellow"),
        "unchanged": ("=", "unchanged", "white"),
    }
    for step in steps:
        sign, verb, colour = signs[step.action]
        what = step.name if step.kind == "functions" else f"route {step.name}"
        click.echo(style(f"{sign} {verb} {what}", colour), err=not as_data)
        for line in step.changes or [] if step.action == "updated" else []:
            click.echo(f"    {line}", err=not as_data)


def apply(session: Session, steps: Sequence[Step]) -> None:
    """Uploads and applies what changed; a refusal of one object is kept, and the others go on."""
    for step in steps:
        if step.action == "unchanged":
            continue
        try:
            if step.package:
                upload(session, step.name, step.package)
            answer = session.client.put(session.path(step.kind, step.name), step.body)
            step.action, step.applied = answer["action"], answer
        except Failure as failure:
            if failure.code in (Exit.UNREACHABLE, Exit.DENIED):
                raise
            step.failure = failure


def upload(session: Session, name: str, package: Package) -> None:
    """Sends the source unless the platform has it; the platform's digest must be ours."""
    if session.client.exists(session.path("blobs", package.digest)):
        return
    note(f"{name}: uploading {package.size / 1024:.0f} KiB")
    answer = session.client.upload(session.path("blobs"), package.file, package.size)
    if answer["digest"] != package.digest:
        raise Failure(f"{name}: the upload arrived damaged", hint="try again")


def wait_all(session: Session, steps: Sequence[Step], patience: float) -> None:
    for step in steps:
        if step.kind == "functions" and not step.failure:
            try:
                wait_ready(session, step.name, patience)
            except Failure as failure:
                step.failure = failure


def result(session: Session, step: Step) -> dict[str, Any]:
    """What `deploy` says of one object, in JSON too."""
    url = f"{session.client.target.url}/fn/{session.namespace}/{step.name}" if step.kind == "functions" else ""
    return {
        "kind": step.kind,
        "name": step.name,
        "namespace": session.namespace,
        "action": step.action,
        "changes": step.changes,
        "url": url,
    }


def report(steps: Sequence[Step]) -> None:
    """Raises the first failure, after the others have been shown."""
    failed = [step for step in steps if step.failure]
    for step in failed[:-1]:
        assert step.failure
        if step.failure.more:
            note(step.failure.more.rstrip("\n"))
        note(style("error: ", "red") + f"{step.name}: {step.failure}")
    if failed:
        last = failed[-1]
        assert last.failure
        raise Failure(
            f"{last.name}: {last.failure.message}",
            hint=last.failure.hint,
            code=last.failure.code,
            more=last.failure.more,
        )
