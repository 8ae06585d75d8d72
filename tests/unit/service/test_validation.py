"""Ranges and rules of specs: each refusal names its field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from service_world import RUNTIMES

from septet.model.errors import InvalidInput
from septet.model.function import (
    Build,
    FunctionSpec,
    FunctionTemplate,
    Limits,
    Network,
    Readiness,
    Scale,
    SecretUse,
    TrafficTarget,
)
from septet.model.objects import Quota
from septet.service import validation

GOOD = FunctionTemplate(runtime="python")


def refused_field(template: FunctionTemplate) -> str:
    with pytest.raises(InvalidInput) as caught:
        validation.template(template, RUNTIMES, {"process"})
    return str(caught.value.details["field"])


def test_the_defaults_are_good() -> None:
    validation.function_spec(FunctionSpec(template=GOOD), RUNTIMES, {"process"})


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("runtime", {"runtime": "pyton"}),
        ("runtime", {"runtime": ""}),
        ("source", {"source": "sha256:abc"}),
        ("source", {"source": "../../etc/passwd"}),
        ("handler", {"handler": "a\nb"}),
        ("command", {"command": ("a\0",)}),
        ("command", {"command": ("",)}),
        ("working_directory", {"working_directory": "/etc"}),
        ("working_directory", {"working_directory": "a/../../b"}),
        ("env", {"env": {"1A": "x"}}),
        ("env", {"env": {"A=B": "x"}}),
        ("env.PORT", {"env": {"PORT": "1"}}),
        ("env.SEPTET_TOKEN", {"env": {"SEPTET_TOKEN": "1"}}),
        ("env.A", {"env": {"A": "x\0y"}}),
        ("build.env", {"build": Build(env={"a b": "x"})}),
        ("build.timeout", {"build": Build(timeout=0)}),
        ("secrets[1]", {"secrets": (SecretUse(name="a"), SecretUse(name="a"))}),
        ("secrets[0].keys", {"secrets": (SecretUse(name="a", keys=("../x",)),)}),
        ("secrets[0].prefix", {"secrets": (SecretUse(name="a", prefix="1-"),)}),
        ("limits.memory", {"limits": Limits(memory=0)}),
        ("limits.cpu", {"limits": Limits(cpu=-1)}),
        ("limits.timeout", {"limits": Limits(timeout=float("nan"))}),
        ("limits.timeout", {"limits": Limits(timeout=float("inf"))}),
        ("limits.pids", {"limits": Limits(pids=0)}),
        ("limits.concurrency", {"limits": Limits(concurrency=-2)}),
        ("scale.min", {"scale": Scale(min=5, max=2)}),
        ("scale.policy", {"scale": Scale(policy="magic")}),
        ("scale.window", {"scale": Scale(window=1)}),
        ("network.allow", {"network": Network(allow=("a.example",))}),
        ("network.allow", {"network": Network(mode="egress", allow=("a b",))}),
        ("readiness.path", {"readiness": Readiness(path="health")}),
        ("sandbox", {"sandbox": "none"}),
        ("platform", {"platform": ("do anything",)}),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(field: str, fields: dict[str, Any]) -> None:
    assert refused_field(msgspec.structs.replace(GOOD, **fields)) == field


@pytest.mark.parametrize(
    "targets",
    [
        (),
        (TrafficTarget(percent=99),),
        (TrafficTarget(percent=60), TrafficTarget(percent=60, revision="a")),
        (TrafficTarget(percent=150), TrafficTarget(percent=-50, revision="a")),
        (TrafficTarget(percent=100), TrafficTarget(percent=0)),
        (TrafficTarget(percent=50, tag="a"), TrafficTarget(percent=50, tag="a")),
        (TrafficTarget(percent=100, tag="a/b"),),
        (TrafficTarget(percent=100, tag="a@b"),),
    ],
)
def test_shares_add_up_and_tags_are_names(targets: tuple[TrafficTarget, ...]) -> None:
    with pytest.raises(InvalidInput):
        validation.traffic(targets)


def test_a_quota_is_not_negative() -> None:
    with pytest.raises(InvalidInput):
        validation.quota(Quota(memory=-1))
