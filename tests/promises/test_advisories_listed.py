"""Each published hole is tested, or listed with the reason why it does not apply yet."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

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
RUNTIMES = [
    "CVE-2019-5736",
    "CVE-2024-21626",
    "CVE-2025-31133",
    "CVE-2025-52565",
    "CVE-2025-52881",
    "CVE-2024-45310",
    "CVE-2021-30465",
    "CVE-2019-19921",
    "CVE-2023-27561",
    "CVE-2019-16884",
    "CVE-2023-28642",
    "CVE-2016-3697",
    "CVE-2016-9962",
    "CVE-2021-43784",
    "GHSA-g54h-m393-cpwq",
    "CVE-2022-29162",
    "CVE-2022-27650",
    "CVE-2023-25809",
    "CVE-2026-41579",
    "CVE-2025-24965",
    "CVE-2019-18837",
    "CVE-2020-15257",
    "CVE-2022-23648",
    "CVE-2025-47290",
    "CVE-2021-32760",
    "CVE-2021-41103",
    "CVE-2024-25621",
    "CVE-2023-25153",
    "CVE-2022-31030",
    "CVE-2022-23471",
    "CVE-2025-64329",
    "CVE-2026-47262",
    "CVE-2024-40635",
    "CVE-2026-46680",
    "CVE-2026-53488",
    "CVE-2026-53489",
    "CVE-2026-53492",
    "CVE-2026-50195",
    "GHSA-5j5w-g665-5m35",
    "GHSA-77vh-xpmg-72qh",
    "GHSA-7ww5-4wqc-m92c",
    "GHSA-c9cp-9c75-9v8c",
    "CVE-2018-16359",
    "CVE-2018-19333",
    "CVE-2018-20168",
    "CVE-2023-7258",
    "CVE-2024-10026",
    "CVE-2024-10603",
    "CVE-2025-2713",
    "CVE-2024-23650",
    "CVE-2024-23651",
    "CVE-2024-23652",
    "CVE-2024-23653",
    "CVE-2026-33747",
    "CVE-2026-33748",
    "CVE-2024-1753",
    "CVE-2024-11218",
    "CVE-2026-44517",
    "CVE-2026-27889",
    "CVE-2026-27571",
    "CVE-2026-33219",
    "CVE-2026-33218",
    "CVE-2026-33222",
    "CVE-2026-33217",
    "CVE-2026-33247",
    "CVE-2025-30215",
]
HTTP_STACK = [
    "CVE-2023-29159",
    "CVE-2023-30798",
    "GHSA-f96h-pmfr-66vw",
    "CVE-2024-47874",
    "CVE-2025-54121",
    "CVE-2025-62727",
    "CVE-2026-48710",
    "CVE-2020-7694",
    "CVE-2020-7695",
    "CVE-2025-43859",
    "CVE-2024-27982",
    "CVE-2025-57804",
    "CVE-2016-6581",
    "CVE-2021-21330",
    "CVE-2023-37276",
    "CVE-2023-47627",
    "CVE-2023-47641",
    "CVE-2023-49081",
    "CVE-2023-49082",
    "CVE-2024-23334",
    "CVE-2024-23829",
    "CVE-2025-53643",
    "CVE-2026-22815",
    "CVE-2024-27306",
    "CVE-2024-30251",
    "CVE-2024-52304",
    "CVE-2025-69223",
    "CVE-2025-69224",
    "CVE-2025-69225",
    "CVE-2025-69226",
    "CVE-2025-69227",
    "CVE-2025-69228",
    "CVE-2025-69229",
    "CVE-2025-69230",
    "CVE-2024-24762",
    "CVE-2026-42561",
    "CVE-2024-53981",
    "CVE-2026-24486",
    "CVE-2026-28356",
    "CVE-2019-16785",
    "CVE-2019-16786",
    "CVE-2019-16789",
    "CVE-2019-16792",
    "CVE-2020-5236",
    "CVE-2022-24761",
    "CVE-2022-31015",
    "CVE-2018-1000164",
    "CVE-2024-1135",
    "CVE-2024-6827",
    "granian-one-request-abort",
    "CVE-2018-1000518",
    "CVE-2021-33880",
    "CVE-2017-11424",
    "CVE-2022-29217",
    "CVE-2023-44487",
    "CVE-2024-27316",
    "CVE-2025-8671",
]
KNOWN = [*FISSION, *OTHERS, *RUNTIMES, *HTTP_STACK]


def unlisted(listed: dict[str, dict[str, str]]) -> set[str]:
    """Those that are neither tested nor given a reason."""
    return set(KNOWN) - set(listed["tested"]) - set(listed["later"])


def test_every_published_hole_is_tested_or_listed_with_its_reason() -> None:
    assert unlisted(LISTED) == set()
    assert set(LISTED["tested"]) & set(LISTED["later"]) == set()
    assert all(len(reason) > 20 for reason in LISTED["later"].values())


@pytest.mark.parametrize("section", ["tested", "later"])
def test_one_that_is_missing_is_found(section: str) -> None:
    for advisory in set(LISTED[section]) & set(KNOWN):
        shorter = {name: {k: v for k, v in rows.items() if k != advisory} for name, rows in LISTED.items()}
        assert unlisted(shorter) == {advisory}


def test_every_named_test_exists() -> None:
    missing = []
    for advisory, place in LISTED["tested"].items():
        file, _, name = place.partition("::")
        text = (ROOT / file).read_text() if (ROOT / file).is_file() else ""
        if not text or f"def {name}" not in text:
            missing.append((advisory, place))
    assert not missing
