"""The pages point at what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from septet.cli.main import VERBS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "SPECIFICATION.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    for verb in re.findall(r"(?:^|`|sudo |\$ )septet ([a-z]+)\b", page.read_text(), re.M):
        assert verb in VERBS, f"{page.name} speaks of `septet {verb}`"


def test_the_readme_opens_with_the_two_commands() -> None:
    block = (ROOT / "README.md").read_text().split("```")[1]
    assert [line.split()[0] for line in block.splitlines()[1:]] == ["./scripts/demo", "./scripts/test"]
