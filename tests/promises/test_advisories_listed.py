"""Each published hole is tested, or listed with the reason why it does not apply yet."""

from __future__ import annotations

import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LISTED: dict[str, dict[str, str]] = tomllib.loads((HERE / "advisories.toml").read_text())
FISSION = [
    "CVE-2026-46614",
    "CVE-2026-46612",
    "CVE-2026-46617",
    "CVE-2026-50565",
    "CVE-2026-46618",
    "CVE-2026-49823",
    "CVE-2026-49824",
    "CVE-2026-49821",
    "CVE-2026-49822",
    "GHSA-7m8x-qg2j-4m3v",
    "CVE-2026-50564",
    "CVE-2026-50545",
    "CVE-2026-50563",
    "CVE-2026-50566",
    "CVE-2026-50570",
    "CVE-2026-50567",
    "CVE-2026-50568",
    "CVE-2026-50569",
]
OTHERS = [
    "CVE-2018-11756",
    "CVE-2018-11757",
    "openwhisk-warm-state",
    "CVE-2023-48713",
    "GHSA-v7hc-87jc-qrrr",
    "knative-audit",
    "CVE-2026-32695",
    "CVE-2019-18960",
    "CVE-2020-16843",
    "CVE-2020-27174",
    "CVE-2026-1386",
    "CVE-2026-5747",
    "CVE-2023-41051",
    "mmds",
    "weak-defaults",
    "CVE-2026-29042",
    "CVE-2026-45730",
    "CVE-2026-52831",
    "CVE-2026-52832",
    "CVE-2026-52833",
    "CVE-2025-68476",
    "CVE-2026-53572",
    "CVE-2026-24834",
    "CVE-2026-41326",
    "CVE-2026-44210",
    "CVE-2026-47243",
]


def test_every_published_hole_is_tested_or_listed_with_its_reason() -> None:
    tested, later = set(LISTED["tested"]), set(LISTED["later"])
    assert set(FISSION + OTHERS) - tested - later == set()
    assert tested & later == set()
    assert all(len(reason) > 20 for reason in LISTED["later"].values())


def test_every_named_test_exists() -> None:
    missing = []
    for advisory, place in LISTED["tested"].items():
        file, _, name = place.partition("::")
        text = (ROOT / file).read_text() if (ROOT / file).is_file() else ""
        if not text or f"def {name}" not in text:
            missing.append((advisory, place))
    assert not missing
