"""Where the platform keeps its data unless told: as root in /var/lib, as a user in the user's data folder."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """The data folder of this user's platform."""
    if os.geteuid() == 0:
        return Path("/var/lib/septet")
    import platformdirs

    return Path(platformdirs.user_data_dir("septet"))
