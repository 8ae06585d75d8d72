"""The request that starts an instance."""

from __future__ import annotations

from typing import Any

import pytest

from septet.control import launch
from septet.model.errors import InvalidInput
from septet.model.function import FunctionTemplate, Limits, Revision, RevisionSpec, RevisionStatus, SecretUse
from septet.model.meta import Meta
from septet.model.objects import EnvironmentSpec
from septet.model.runtime import Runtime
from septet.ports.sandbox import LaunchRequest, Volume

PYTHON = Runtime(
    name="python",
    command=("{interpreter}", "{runtime}/shim.py", "{code}", "{deps}", "{handler}"),
    handler="handler.handle",
    env={"PYTHONPATH": "{deps}", "A": "runtime"},
)
HTTP = Runtime(name="http", protocol="http1", start_from_spec=True, concurrency=-1)
VALUES = {"db": {"user": b"me", "key": b"\x00\xff"}}


def build(runtime: Runtime = PYTHON, values: Any = VALUES, **template: Any) -> LaunchRequest:
    options = {key: template.pop(key) for key in ("token", "environment", "gateway") if key in template}
    revision = Revision(
        meta=Meta(name="hello-00001", namespace="team", uid="u1", labels={"app": "x"}),
        spec=RevisionSpec(
            function="hello", function_uid="f", number=1, template=FunctionTemplate(runtime=runtime.name, **template)
        ),
        status=RevisionStatus(artifact="tree:1"),
    )
    return launch.request("i-1", revision, runtime, values, driver="process", **options)


def test_paths_of_the_code_are_filled_in_and_those_of_the_host_left_to_the_driver() -> None:
    container = build().containers[0]
    assert container.command == (
        "{interpreter}", "{runtime}/shim.py", "/function/code", "/function/deps", "handler.handle",
    )  # fmt: skip
    assert container.volumes == (Volume(tree="tree:1", target="/function"),)
    assert container.working_directory == "/function/code"
    assert container.env["PYTHONPATH"] == "/function/deps"
    assert build(handler="main.run").containers[0].command[-1] == "main.run"
    assert build(working_directory="web").containers[0].working_directory == "/function/code/web"
    assert build(working_directory="/tmp").containers[0].working_directory == "/tmp"


def test_environment_names_the_instance_and_the_platform_has_the_last_word() -> None:
    env = build(env={"A": "mine", "PORT": "1", "SEPTET_FUNCTION": "forged"}, gateway=9000).containers[0].env
    assert env["A"] == "mine"
    assert (env["PORT"], env["SEPTET_FUNCTION"]) == ("8080", "hello")
    assert (env["SEPTET_NAMESPACE"], env["SEPTET_REVISION"], env["SEPTET_INSTANCE"]) == ("team", "hello-00001", "i-1")
    assert env["SEPTET_HANDLER"] == "handler.handle"
    assert env["SEPTET_CONCURRENCY"] == "1"
    assert env["SEPTET_GATEWAY"] == "http://127.0.0.1:9000"
    assert "SEPTET_GATEWAY" not in build().containers[0].env
    assert build(HTTP, command=("./s",)).containers[0].env["SEPTET_CONCURRENCY"] == "-1"
    assert build(limits=Limits(concurrency=7)).containers[0].env["SEPTET_CONCURRENCY"] == "7"


def test_start_command_comes_from_the_function_where_the_runtime_says_so() -> None:
    request = build(HTTP, command=("{code}/server", "--quick"))
    assert request.containers[0].command == ("/function/code/server", "--quick")
    assert request.protocol == "http1"
    with pytest.raises(InvalidInput, match="start command"):
        build(HTTP)
    assert build(command=("ignored",)).containers[0].command[0] == "{interpreter}"


def test_secrets_are_files_and_variables_as_asked() -> None:
    container = build(secrets=(SecretUse(name="db"),)).containers[0]
    assert container.files == {"/run/secrets/db/user": b"me", "/run/secrets/db/key": b"\x00\xff"}
    assert "user" not in container.env
    container = build(secrets=(SecretUse(name="db", keys=("user",), env=True, files=False, prefix="DB_"),)).containers[
        0
    ]
    assert container.files == {}
    assert container.env["DB_user"] == "me"


def test_missing_secret_key_or_odd_variable_is_refused_without_its_value() -> None:
    with pytest.raises(InvalidInput, match="no secret 'nope'"):
        build(secrets=(SecretUse(name="nope"),))
    with pytest.raises(InvalidInput, match="no key 'nope'"):
        build(secrets=(SecretUse(name="db", keys=("nope",)),))
    with pytest.raises(InvalidInput, match="cannot be an environment variable") as caught:
        build(secrets=(SecretUse(name="db", keys=("key",), env=True),))
    assert "ff" not in str(caught.value)


def test_platform_token_is_a_file_and_never_a_variable() -> None:
    container = build(token="sept_x").containers[0]
    assert container.files["/run/septet/token"] == b"sept_x"
    assert container.env["SEPTET_TOKEN_FILE"] == "/run/septet/token"
    assert "sept_x" not in container.env.values()


def test_labels_lead_back_to_the_revision() -> None:
    assert build().labels == {"app": "x", "septet/revision-uid": "u1", "septet/sandbox": "process"}


def test_environment_object_brings_variables_and_an_image() -> None:
    container = build(environment=EnvironmentSpec(image="img", env={"A": "object", "B": "object"})).containers[0]
    assert container.image == "img"
    assert (container.env["A"], container.env["B"]) == ("object", "object")
