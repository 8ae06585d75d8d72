"""septet.yaml: what is read, and how errors name the place."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.cli.failures import Exit, Failure
from septet.cli.project import Project, parse_project, schema
from septet.model.function import FunctionTemplate, SecretUse


def refused(text: str, env: dict[str, str] | None = None) -> str:
    with pytest.raises(Failure) as caught:
        parse_project(text, env or {})
    assert caught.value.code == Exit.USAGE
    return str(caught.value)


def test_everything_is_carried_into_the_spec() -> None:
    project = parse_project(
        """\
functions:
  hello:
    runtime: python
    source: ./app
    handler: app:handle
    env: {PORT: 8080, DEBUG: yes, RATIO: 0.50, DAY: 2026-01-02}
    secrets: [db, {name: api, env: true, prefix: API_}]
    limits: {memory: 1Gi, tmp: 32, timeout: 1m30s, request_body: 10Mi}
    scale: {min: 1, window: 2m}
    network: {mode: egress, allow: ["example.com:443"]}
    readiness: {path: /ready, timeout: 500ms}
    access: public
    rollout: 30s
    traffic: [{percent: 100}, {tag: canary, revision: hello-00002}]
""",
        {},
    )
    spec = project.functions["hello"].spec("sha256:0")
    template = spec.template
    assert template.env == {"PORT": "8080", "DEBUG": "yes", "RATIO": "0.50", "DAY": "2026-01-02"}
    assert template.secrets == (SecretUse(name="db"), SecretUse(name="api", env=True, prefix="API_"))
    assert (template.limits.memory, template.limits.tmp, template.limits.timeout) == (1024, 32, 90.0)
    assert template.limits.request_body == 10 * 2**20
    assert (template.scale.window, template.readiness.timeout, spec.rollout) == (120.0, 0.5, 30.0)
    assert (template.network.mode, template.source, spec.access) == ("egress", "sha256:0", "public")
    assert spec.traffic[1].tag == "canary"


def test_every_field_of_the_template_can_be_written() -> None:
    from septet.cli.project import FunctionEntry

    assert set(FunctionTemplate.__struct_fields__) <= set(FunctionEntry.__struct_fields__)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("functions:\n  hello:\n    runtime: python\n    memroy: 1\n",
         ["septet.yaml:4", "'memroy'", "functions.hello", "known are"]),
        ("functions:\n  hello:\n    runtime: x\n    limits:\n      memroy: 1\n",
         [":5", "functions.hello.limits", "did you mean 'memory'?"]),
        ("function: {}\n", [":1", "did you mean 'functions'?"]),
        ("functions:\n  a:\n    runtime: x\n    secrets:\n      - nam: db\n",
         ["functions.a.secrets[0]", "did you mean 'name'?"]),
        ("functions:\n  a:\n    runtime: x\n    scale: {min: many}\n",
         [":4", "functions.a.scale.min", "Expected `int`, got `str`"]),
        ("functions:\n  a:\n    handler: x\n", ["functions.a", "runtime"]),
        ("functions:\n  a:\n    runtime: x\n    access: everyone\n", ["functions.a.access", "everyone"]),
        ("functions:\n  a:\n    runtime: x\n    limits: {timeout: soon}\n", ["functions.a.limits.timeout", "30s"]),
        ("functions:\n  a:\n    runtime: x\n    limits: {memory: 1Ki}\n", ["functions.a.limits.memory", "MiB"]),
        ("functions: [a]\n", ["functions", "mapping"]),
        ("- a\n", ["must be a mapping"]),
        ("namespace: 3\n", ["namespace", "text"]),
        ("routes:\n  r: {host: a}\n", ["routes.r", "function"]),
        ("a: [\n", ["septet.yaml:2", "not YAML"]),
        ("functions: {a: {runtime: x}, a: {runtime: y}}\n", ["'a' stands here twice"]),
        ("a: !!python/object/apply:os.system [id]\n", ["unknown key 'a'"]),
        ("namespace: !!python/name:os.system x\n", ["tag", "not allowed"]),
        ("namespace: ${NOWHERE}\n", ["septet.yaml:1", "variable NOWHERE is not set", "${NOWHERE:-default}"]),
    ],
)  # fmt: skip
def test_errors_name_key_place_and_remedy(text: str, words: list[str]) -> None:
    message = refused(text)
    assert all(word in message for word in words), message


def test_substitution() -> None:
    env = {"NAME": "shop", "MEM": "256", "EMPTY": "", "EVIL": "x\nroutes: {}"}
    project = parse_project(
        "namespace: ${NAME}\nfunctions:\n  a:\n    runtime: ${LANG_:-python}\n"
        "    command: [sh, -c, 'echo $${HOME} $HOME']\n"
        "    env: {A: '${EVIL}', B: '${EMPTY:-fallback}', C: '${MEM}', D: '${EMPTY}'}\n"
        "    limits: {memory: '${MEM}Mi'}\n"
        "    scale:\n      max: ${MEM}\n",
        env,
    )
    entry = project.functions["a"]
    assert (project.namespace, entry.runtime, entry.command[2]) == ("shop", "python", "echo ${HOME} $HOME")
    assert entry.env == {"A": "x\nroutes: {}", "B": "fallback", "C": "256", "D": ""}
    assert (entry.limits.memory, entry.scale.max, project.routes) == (256, 256, {})


def test_merge_keys_and_anchors() -> None:
    project = parse_project(
        "functions:\n  a: &base\n    runtime: python\n    limits: {memory: 64}\n"
        "  b:\n    <<: *base\n    runtime: node\n",
        {},
    )
    assert (project.functions["b"].runtime, project.functions["b"].limits.memory) == ("node", 64)


def test_an_alias_bomb_ends_early() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "more than 10000 values" in refused("\n".join(lines))
    merges = ["a0: &a0 {k: v}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10)]
    assert "more than 10000 values" in refused("\n".join(merges))


def test_depth_recursion_and_size_end_early() -> None:
    assert "deeper" in refused("a: " + "[" * 50 + "]" * 50)
    assert "deeper" in refused("a: &a [*a]")
    assert refused("a: " + "[" * 100_000)
    assert "larger" in refused("#" * 2_000_000)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_project(text, {}), Project)
    except Failure as failure:
        assert failure.code == Exit.USAGE


def test_the_shipped_schema_is_what_the_structs_say() -> None:
    shipped = json.loads(files("septet.cli").joinpath("schemas/septet.schema.json").read_text())
    assert shipped == json.loads(json.dumps(schema())), "run scripts/generate"


def test_the_schema_knows_every_key_and_refuses_others() -> None:
    definitions = schema()["$defs"]
    for definition in definitions.values():
        assert definition["additionalProperties"] is False
    limits = definitions["Limits"]["properties"]
    assert {"type": "integer"} in limits["memory"]["anyOf"] and limits["memory"]["default"] == 128


def test_defaults_are_the_models() -> None:
    project = parse_project("functions:\n  a: {runtime: python}\n", {})
    assert project.functions["a"].spec("") == msgspec.convert(
        {"template": {"runtime": "python"}}, type(project.functions["a"].spec(""))
    )


def test_reading_a_file(tmp_path: Path) -> None:
    from septet.cli.project import read_project

    (tmp_path / "septet.yaml").write_text("functions:\n  a: {runtime: python}\n")
    assert read_project(tmp_path / "septet.yaml").folder == tmp_path
    (tmp_path / "septet.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Failure):
        read_project(tmp_path / "septet.yaml")
