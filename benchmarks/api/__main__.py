"""Load rows L1 to L10 of the API, with CPU-milliseconds per request and a bare FastAPI beside it.

    python -m benchmarks.api                                   # every row, PostgreSQL with 100,000 jobs
    python -m benchmarks.api --rows L1,L5 --scale 0.3 --database sqlite --cores 1,1

The server runs on the first core, the generator on the second, the database server on both: each of its processes is
a session of its own, and a kernel that shares a core between sessions (autogroups) lets one of them wait for seconds
beside a busy server. On one and the same core every latency has the generator's own work in it. The database server
runs without fsync.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.api import report, rows_reading, rows_whole, rows_working
from benchmarks.api.world import World, world

ROWS: dict[str, Callable[[World], dict[str, Any]]] = {
    "L1": rows_reading.l1, "L2": rows_working.l2, "L3": rows_whole.l3, "L4": rows_whole.l4, "L5": rows_working.l5,
    "L6": rows_working.l6, "L7": rows_reading.l7, "L8": rows_reading.l8, "L10": rows_whole.l10,
}  # fmt: skip


def main() -> int:
    """See the top of the file."""
    cores = sorted(os.sched_getaffinity(0))
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", default=",".join([*ROWS, "L9"]), help="with commas between")
    options.add_argument("--scale", type=float, default=1.0, help="of durations and sizes")
    options.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    options.add_argument("--jobs", type=int, default=100_000, help="queued before anything is measured")
    options.add_argument("--minutes", type=float, default=20.0, help="of the soak, L9")
    options.add_argument("--cores", default=f"{cores[0]},{cores[-1]}", help="of the server and of the generator")
    given = options.parse_args()
    wanted = [name for name in [*ROWS, "L9"] if name in given.rows.upper().split(",")]
    server, generator = (int(core) for core in given.cores.split(","))
    os.sched_setaffinity(0, {server, generator})  # the database server inherits it
    command = shlex.join(["python", "-m", "benchmarks.api", *sys.argv[1:]])
    about = {
        "date": time.strftime("%Y-%m-%d %H:%M"), "command": command,
        "device": f"{os.cpu_count()} cores, {platform.machine()}", "cores": given.cores, "database": given.database,
        "jobs": given.jobs, "scale": given.scale, "load": round(os.getloadavg()[0], 1),
        "note": "Server and generator shared one core." if server == generator else "",
    }  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves by the finally clauses
    with world(given.database, given.jobs, given.scale, (server, generator)) as made:
        os.sched_setaffinity(0, {generator})
        for name in wanted:
            found = rows_reading.l9(made, given.minutes) if name == "L9" else ROWS[name](made)
            print(name, json.dumps(found), flush=True)
            report.write("api", {**about, "load": round(os.getloadavg()[0], 1)}, {name: found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
