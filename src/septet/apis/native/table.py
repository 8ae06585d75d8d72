"""The whole API: routes, OpenAPI document and the test of every credential are made from these rows."""

from __future__ import annotations

from septet.apis.native.function_rows import FUNCTIONS, OTHERS
from septet.apis.native.platform_rows import NAMESPACES, PLATFORM, TOKENS
from septet.apis.native.row import Row

ROWS: tuple[Row, ...] = (*PLATFORM, *TOKENS, *NAMESPACES, *FUNCTIONS, *OTHERS)
