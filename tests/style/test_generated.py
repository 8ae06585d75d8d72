"""Pages and schemas that are made from the code are current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_generated_files_are_current() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "generate", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_verb_has_help_with_examples() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    sections = text.split("\n## septet ")[1:]
    assert len(sections) >= 20
    for section in sections:
        assert "Example" in section, section.splitlines()[0]
