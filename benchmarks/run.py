"""`make bench`: every measurement that needs nothing beside the project, one after the other.

The engine alone (throughput, utilisation, memory), then the API under a 2 GB upload with polls beside it. Each prints
its figures and keeps them under `benchmarks/results/` with date, device and command. `--peers` and `--python` add the
comparison with other libraries (`benchmarks.peers`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

from benchmarks.engine import device_name

RESULTS = Path("benchmarks/results")


def main() -> int:
    """0 where every measurement ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="folder of the peers' scripts")
    parser.add_argument("--python", help="a Python that has the peers installed")
    given = parser.parse_args()
    if (given.peers is None) != (given.python is None):
        parser.error("--peers and --python go together")
    engine = subprocess.run([sys.executable, "-m", "benchmarks.engine", "--out", str(RESULTS)])
    upload = subprocess.run([sys.executable, "-m", "benchmarks.upload"], stdout=subprocess.PIPE, text=True)
    print(upload.stdout)
    if upload.returncode == 0:
        kept = {"date": date.today().isoformat(), "device": device_name(gpu=False), "command": "benchmarks.upload"}
        RESULTS.mkdir(parents=True, exist_ok=True)
        figures = json.loads(upload.stdout)
        (RESULTS / "upload.json").write_text(json.dumps({**kept, "figures": figures}, indent=1) + "\n")
    codes = [engine.returncode, upload.returncode]
    if given.peers:
        beside = ["-m", "benchmarks.peers", "--peers", given.peers, "--python", given.python]
        codes.append(subprocess.run([sys.executable, *beside]).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
