"""Builds in the running program: dependencies, private indexes, limits, failures, the cache, and what they leave."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from programs import GO_FOLDERS, need
from septet_platform import Platform

SIX = {"main.py": "import six\ndef handle(request, context):\n    return six.__version__\n"}
HELLO = {"main.py": "def handle(request, context):\n    return 'hello'\n"}
IS_NUMBER = "sha512-41Cifkg6e8TylSpdtTpeLVMqvSBEVzTttHvERD741+pnZ8ANv0004MRL43QKPDlK9cGvNp6NZWZUBlbGXYxxng=="
UUID_SUM = """github.com/google/uuid v1.6.0 h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0=
github.com/google/uuid v1.6.0/go.mod h1:TIyPZe4MgqvfeYDBFedMoGGpEw/LqOeaOT+nhxU+yHo=
"""
WORLD = Path(__file__).with_name("private_index_world.py")


def has_pip(python: str) -> bool:
    return (
        os.access(python, os.X_OK) and subprocess.run([python, "-m", "pip", "-V"], capture_output=True).returncode == 0
    )


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The index that this host installs from. Without it these tests fail in CI, and are skipped elsewhere."""
    where = str(tmp_path_factory.mktemp("index"))
    found = [path for path in ("/usr/bin/python3", sys.executable) if has_pip(path)]
    if not found:
        pytest.fail("no Python here has pip: apt install python3-pip")
    command = [found[0], "-m", "pip", "download", "-q", "--no-deps", "-d", where, "six"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        why = f"no package index can be reached: {done.stderr[-500:]}"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)


def has_way_out() -> bool:
    """Whether builds have a network here: as root, and for a user that pasta works for."""
    tunnel = os.access("/dev/net/tun", os.R_OK | os.W_OK)
    return os.geteuid() == 0 or (tunnel and shutil.which("pasta") is not None)


def failure(platform: Platform, name: str, timeout: float = 60) -> str:
    """Why the newest revision did not become ready."""
    end = time.monotonic() + timeout
    while True:
        function = platform.api("GET", f"/namespaces/default/functions/{name}")
        current = function["status"]["observed_generation"] == function["meta"]["generation"]
        for condition in function["status"]["conditions"]:
            if current and condition["type"] == "RevisionReady" and condition["status"] is False:
                return str(condition["message"])
        assert time.monotonic() < end, function["status"]
        time.sleep(0.05)


def build_log(platform: Platform, name: str, number: int = 1) -> str:
    path = f"/septet/v1/namespaces/default/functions/{name}/revisions/{name}-{number:05}/build-log"
    got = platform.request("GET", path)
    assert got.status == 200, got.text
    return got.text


def told(platform: Platform, name: str, number: int) -> list[str]:
    """What the build of a revision told while it ran."""
    path = f"/septet/v1/namespaces/default/functions/{name}/logs?instance=build&revision={name}-{number:05}"
    return [json.loads(line)["text"] for line in platform.request("GET", path).text.splitlines()]


def built(platform: Platform, name: str, files: Mapping[str, str], **spec: Any) -> str:
    """What a function answers whose build needs the network. Where builds have none, that this was said."""
    if has_way_out():
        platform.deploy(name, files, timeout=240, **spec)
        return platform.call(name).text
    platform.apply(name, files, **spec)
    message = failure(platform, name)
    assert "it had no network: network mode egress" in message, message
    assert "passt" in message or "/dev/net/tun" in message, message
    return ""


def test_a_python_function_with_requirements(platform: Platform, index: None) -> None:
    answer = built(platform, "wants-six", {**SIX, "requirements.txt": "six==1.17.0\n"})
    if answer:
        assert answer == "1.17.0"
        assert "Successfully installed six-1.17.0" in build_log(platform, "wants-six")


def test_a_python_function_with_a_pyproject(platform: Platform, index: None) -> None:
    project = '[project]\nname = "mine"\nversion = "1"\ndependencies = ["six==1.17.0"]\n'
    assert built(platform, "project", {**SIX, "pyproject.toml": project}) in ("1.17.0", "")


def test_a_node_function_with_a_lock_file(platform: Platform, index: None) -> None:
    need("npm", "npm")
    package = {"name": "mine", "version": "1.0.0", "dependencies": {"is-number": "7.0.0"}}
    locked = {"version": "7.0.0", "integrity": IS_NUMBER, "license": "MIT"}
    lock = {"name": "mine", "version": "1.0.0", "lockfileVersion": 3, "requires": True}
    packages = {"": package, "node_modules/is-number": locked}
    files = {
        "main.js": "const is = require('is-number');\nexports.handle = () => String(is('5')) + is('x');\n",
        "package.json": json.dumps(package),
        "package-lock.json": json.dumps({**lock, "packages": packages}),
    }
    assert built(platform, "numbers", files, runtime="node") in ("truefalse", "")


def test_a_go_function_with_a_module(platform: Platform, index: None) -> None:
    need("go", "golang-go", *GO_FOLDERS)
    source = """package function

import (
	"github.com/google/uuid"
	"septet"
)

func Handle(_ septet.Context, _ *septet.Request) (any, error) {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("x")).String(), nil
}
"""
    module = "module function\n\ngo 1.19\n\nrequire github.com/google/uuid v1.6.0\n"
    files = {"function.go": source, "go.mod": module, "go.sum": UUID_SUM}
    assert built(platform, "ids", files, runtime="go") in (str(uuid.uuid5(uuid.NAMESPACE_URL, "x")), "")


def test_what_the_source_brings_along_needs_no_network(platform: Platform) -> None:
    """A wheel in the source, and an index that is switched off."""
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("brought.py", "WORD = 'brought along'\n")
        file.writestr("brought-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: brought\nVersion: 1\n")
        file.writestr("brought-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("brought-1.dist-info/RECORD", "")
    files: dict[str, str | bytes] = {
        "main.py": "import brought\ndef handle(request, context):\n    return brought.WORD\n",
        "requirements.txt": "--no-index\n--find-links wheels\nbrought\n",
        "wheels/brought-1-py3-none-any.whl": wheel.getvalue(),
    }
    platform.deploy("brought", files)
    assert platform.call("brought").text == "brought along"


def test_a_ruby_function_with_a_gemfile(platform: Platform) -> None:
    """A gem in the source, so that no gem server is asked."""
    need("bundle", "ruby-bundler")
    gem = "Gem::Specification.new { |s| s.name = 'brought'; s.version = '1'; s.summary = 'x'; s.authors = ['x']; "
    files = {
        "main.rb": "require 'brought'\ndef handle(request, context)\n  BROUGHT\nend\n",
        "Gemfile": "gem 'brought', path: 'gems/brought'\n",
        "gems/brought/brought.gemspec": gem + "s.files = ['lib/brought.rb'] }\n",
        "gems/brought/lib/brought.rb": "BROUGHT = 'from the gem'\n",
    }
    platform.deploy("gems", files, runtime="ruby")
    assert platform.call("gems").text == "from the gem"
    assert "Bundle complete" in build_log(platform, "gems")


def test_a_failed_build_shows_its_end_and_changes_nothing(platform: Platform) -> None:
    platform.deploy("steady", HELLO)
    broken = {**HELLO, "requirements.txt": "--no-index\nnothing-of-this-name==1\n"}
    platform.apply("steady", broken)
    message = failure(platform, "steady")
    assert "steady-00002: the build step for requirements.txt failed: it ended with code 1" in message
    assert "No matching distribution found for nothing-of-this-name==1" in message
    assert "No matching distribution found" in build_log(platform, "steady", 2)
    assert platform.call("steady").text == "hello"


def test_an_equal_build_comes_from_the_cache(platform: Platform) -> None:
    source = {**HELLO, "extra.txt": "cache\n"}
    platform.deploy("first", source)
    platform.deploy("second", source)
    assert told(platform, "second", 1) == ["from the build cache"]
    assert build_log(platform, "second") == build_log(platform, "first")


def setup_py(text: str) -> dict[str, str]:
    """A source whose build runs `text` in the sandbox, without an index: pip asks a build backend of its own."""
    backend = f"def prepare_metadata_for_build_wheel(*a, **k):\n    run()\ndef run():\n    {text}\n"
    backend += "def build_wheel(*a, **k):\n    run()\ndef get_requires_for_build_wheel(*a):\n    return []\n"
    project = '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
    return {**HELLO, "own.py": backend, "pyproject.toml": project + '[project]\nname = "x"\nversion = "1"\n'}


def test_each_limit_of_a_build_is_named(platform: Platform) -> None:
    platform.apply("late", setup_py("import time; time.sleep(60)"), build={"timeout": 2})
    assert "it ran longer than 2 s" in failure(platform, "late")
    # pip keeps what a backend prints for itself; its own output is what a build prints.
    flood = (
        "import os\n    out = open(f'/proc/{os.getppid()}/fd/1', 'w')\n    while True: out.write('x' * 1000 + '\\n')"
    )
    platform.apply("loud", setup_py(flood))
    assert "it printed more than 16 MiB" in failure(platform, "loud")
    assert len(build_log(platform, "loud")) < 3 << 20


@pytest.mark.root
def test_memory_and_processes_of_a_build_are_named(platform: Platform) -> None:
    platform.apply("big", setup_py("x = bytearray(3 << 30)"))
    assert "it used more than its 2048 MiB of memory" in failure(platform, "big")
    forks = "import os, time\n    while True:\n        if os.fork() == 0: time.sleep(3); os._exit(0)"
    platform.apply("many", setup_py(forks))
    assert "it could not start more than 512 processes" in failure(platform, "many")


def test_a_build_that_was_killed_with_the_platform_goes_on(own_platform: Platform) -> None:
    platform = own_platform.start()
    slow = setup_py("import time; time.sleep(3); raise SystemExit('came to its end')")
    platform.apply("slow", slow)
    end = time.monotonic() + 20
    while "install.py" not in build_log_or_nothing(platform, "slow"):
        assert time.monotonic() < end
        time.sleep(0.05)
    platform.kill()
    platform.start()
    assert "came to its end" in failure(platform, "slow")
    left = [path.name for path in (platform.data / "trees" / "work").iterdir()]
    assert left == []


def build_log_or_nothing(platform: Platform, name: str) -> str:
    path = f"/septet/v1/namespaces/default/functions/{name}/revisions/{name}-00001/build-log"
    return platform.request("GET", path).text


def test_the_log_can_be_followed_to_the_end_of_the_build(platform: Platform) -> None:
    platform.apply("followed", setup_py("import time; time.sleep(2); raise SystemExit('came to its end')"))
    link = platform.connection()
    path = "/septet/v1/namespaces/default/functions/followed/revisions/followed-00001/build-log"
    end = time.monotonic() + 20
    while platform.request("GET", path).status != 200:
        assert time.monotonic() < end
    link.request("GET", f"{path}?follow=true", headers={"Authorization": f"Bearer {platform.token}"})
    answer = link.getresponse()
    assert b"install.py" in answer.readline()
    first = time.monotonic()
    rest = answer.read().decode()
    assert "came to its end" in rest
    assert time.monotonic() - first > 1, "the first line came while the build ran"
    assert platform.request("GET", f"{path}?follow=true").text == build_log(platform, "followed")
    link.close()


def test_a_hostile_archive_is_refused(platform: Platform) -> None:
    platform.apply("hostile", {**HELLO, "../../etc/passwd": "x"})
    message = failure(platform, "hostile")
    assert "../../etc/passwd" in message, message


@pytest.mark.root
@pytest.mark.parametrize("runtime", ["python", "ruby"])
def test_credentials_of_a_private_index_exist_only_during_the_build(tmp_path: Path, runtime: str) -> None:
    """In a little internet of its own, where an index wants a name and a password (private_index_world.py)."""
    if runtime == "ruby":
        need("bundle", "bundler")
    command = ["unshare", "--net", "--mount", "--", sys.executable, str(WORLD), str(tmp_path), runtime]
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout)
    assert seen["answer"] == "from the private index"
    assert seen["asked"] > 0, "the index was asked with the password"
    assert "private-index-package" in seen["log"]
    assert seen["planted"], "the search finds what is there"
    assert seen["found"] == [], "the password, or its base64, stands nowhere"
    assert seen["wrong"], "without the secret the build fails"


def test_a_source_is_a_folder_a_file_a_zip_or_a_tar(platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    text = "import os\ndef handle(request, context):\n    return ' '.join(sorted(os.listdir('.')))\n"
    (folder / "main.py").write_text(text)
    (folder / "left-out.txt").write_text("x")
    (folder / ".septetignore").write_text("left-out.txt\n")
    (tmp_path / "main.py").write_text(text)
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as file:
        file.write(folder / "main.py", "main.py")
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as tar:
        tar.add(folder / "main.py", "main.py")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SEPTET_")}
    env = {**clean, "SEPTET_URL": platform.url, "SEPTET_TOKEN": platform.token, "SEPTET_CONFIG": str(tmp_path / "c")}
    deploy = [sys.executable, "-m", "septet", "deploy", "--runtime", "python"]
    for number, source in enumerate(("folder", "main.py", "source.zip", "source.tar.gz")):
        command = [
            sys.executable,
            "-m",
            "septet",
            "deploy",
            f"form-{number}",
            "--runtime",
            "python",
            "--source",
            source,
        ]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        names = platform.call(f"form-{number}").text.split()
        assert "main.py" in names and "left-out.txt" not in names, f"{source}: {names}"
    # While it builds, the command shows what the build says.
    (folder / "requirements.txt").write_text("--no-index\nnothing-of-this-name\n")
    command = [*deploy, "form-0", "--source", "folder"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "  | ERROR: No matching distribution found for nothing-of-this-name" in done.stderr, done.stderr
    assert done.stderr.count("No matching distribution") == 1, done.stderr


GO_HELLO = """package function

import "septet"

func Handle(context septet.Context, request *septet.Request) (any, error) { return "%s", nil }
"""


def test_a_go_build_finds_what_earlier_builds_of_its_namespace_compiled(own_platform: Platform) -> None:
    need("go", "golang-go", *GO_FOLDERS)
    platform = own_platform.start()
    platform.api("PUT", "/namespaces/other", {})
    kept = platform.data / "trees" / "kept"
    took = {}
    for name, text, namespace in (("a", "one", "default"), ("b", "two", "default"), ("c", "one", "other")):
        begun = time.monotonic()
        platform.deploy(name, {"function.go": GO_HELLO % text}, namespace, runtime="go", timeout=200)
        took[name] = time.monotonic() - begun
        assert platform.call(name, namespace=namespace).text == text
        there = {path.name for path in kept.iterdir()}
        assert there == ({"default.go"} if namespace == "default" else {"default.go", "other.go"})
    assert took["b"] < took["a"] / 3, took
    assert took["c"] > took["b"] * 3, f"another namespace compiles for itself, though the source is the same: {took}"
    assert {path.stat().st_uid for path in kept.rglob("*")} == {os.geteuid()}


def test_a_build_waits_for_the_nodes_memory(tmp_path: Path) -> None:
    with Platform(tmp_path / "data", "--memory-budget", "256") as platform:
        # It keeps an instance, which fills the node.
        platform.deploy("full", HELLO, limits={"memory": 256}, scale={"min": 1})
        platform.apply("next", {**HELLO, "next.txt": ""}, limits={"memory": 64})
        waits = "waits for 256 MiB of the node's memory: 256 of 256 MiB are taken"
        end = time.monotonic() + 60
        while waits not in told(platform, "next", 1):
            assert time.monotonic() < end, told(platform, "next", 1)
            time.sleep(0.05)
        assert platform.call("full").text == "hello"
        platform.api("DELETE", "/namespaces/default/functions/full")
        platform.wait_ready("next")
        assert platform.call("next").text == "hello"
        assert build_log(platform, "next").count("waits for") == 1
        # An idle instance goes without anybody's help.
        platform.deploy("after", {**HELLO, "after.txt": ""}, limits={"memory": 64})
        platform.apply("huge", {**HELLO, "huge.txt": ""}, build={"memory": 512})
        message = failure(platform, "huge")
        assert "the build of huge needs 512 MiB of memory, and the node has 256 MiB" in message
        assert "lower build.memory" in message and "--memory-budget" in message
