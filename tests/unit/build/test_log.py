"""A build's log: bounded, and without credentials in any of their forms."""

from __future__ import annotations

from pathlib import Path

from septet.build.log import BuildLog
from septet.build.surroundings import surroundings


def log(*hidden: str, settings: tuple[str, ...] = (), most: int = 1000) -> tuple[BuildLog, list[str]]:
    said: list[str] = []
    return BuildLog(hidden, settings, said.append, most), said


def test_a_value_is_blotted_out_in_every_form() -> None:
    made, said = log("p@ss word/1", "https://joe:s3cr%21t@index.test/simple", "first line\nsecond line")
    for text in ("p@ss word/1", "p%40ss%20word%2F1", "s3cr!t", "s3cr%21t", "first line", "second line"):
        made.line(f"<{text}>")
    assert said == ["<***>"] * 6
    assert made.whole() == b"<***>\n" * 6


def test_credentials_in_urls_go_whoever_gave_them() -> None:
    made, said = log(settings=("https://joe:hunter22@index.test/simple", "info"))
    made.line("from https://someone:else@other.test/x and hunter22, for your info")
    assert said == ["from https://***@other.test/x and ***, for your info"]


def test_short_values_stay_readable() -> None:
    made, said = log("a", "yes")
    made.line("yes, a line")
    assert said == ["yes, a line"]


def test_the_end_is_kept_and_what_is_left_out_is_said() -> None:
    made, said = log(most=100)
    for number in range(50):
        made.line(f"line {number:04}")
    assert len(said) == 50
    lines = made.whole().decode().splitlines()
    assert lines[0] == "(40 earlier lines are left out)" and lines[-1] == "line 0049" and len(lines) == 11
    assert made.tail(2) == "line 0048\nline 0049"


def test_a_file_that_a_variable_names_is_taken_along(tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    own.write_text("PEM")
    env = {
        "PIP_CERT": str(own),
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
        "REQUESTS_CA_BUNDLE": str(tmp_path / "missing.pem"),
        "PIP_INDEX_URL": "https://index.test",
    }
    found = surroundings(env)
    assert found.env == {**env, "PIP_CERT": "/run/build/PIP_CERT"}
    assert found.files == {"/run/build/PIP_CERT": b"PEM"}
