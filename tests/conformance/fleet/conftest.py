"""Makes the suite's own modules importable, and the world in memory that control's tests use."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "unit" / "control"), str(HERE.parents[1] / "harness")]
