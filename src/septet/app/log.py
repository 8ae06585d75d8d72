"""The platform's own log on standard error: plain for a person, JSON for a program."""

from __future__ import annotations

import logging
import sys


class JsonLines(logging.Formatter):
    """One JSON object a line: what programs read."""

    def format(self, record: logging.LogRecord) -> str:
        import msgspec

        entry: dict[str, object] = {
            "at": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def start_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(plain if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
