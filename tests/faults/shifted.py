"""Run a role with its wall clock moved: `SHIFTED` seconds, `SHIFTED_MAIN` the module whose `main` it is.

Only what Python asks by `time.time` moves; the database's own clock, by which leases are counted, stays.
"""

from __future__ import annotations

import importlib
import os
import sys
import time

_TRUE = time.time
_BY = float(os.environ["SHIFTED"])


def main() -> int:
    """The role's own."""
    time.time = lambda: _TRUE() + _BY
    return int(importlib.import_module(os.environ["SHIFTED_MAIN"]).main() or 0)


if __name__ == "__main__":
    sys.exit(main())
