"""Random faults under a small load, then the invariants: `python -m tests.faults.soak --minutes 30 --seed 7`.

The faults, their order, lengths and the pauses between them are drawn from the seed alone and printed as they happen,
so that a failing seed is run again with the same ones. Half of the time goes to SQLite, half to PostgreSQL.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.faults import strikes
from tests.faults.disks import small_disk
from tests.faults.invariants import check, summary
from tests.faults.load import Load
from tests.faults.rig import Rig
from tests.services import make_tables


@dataclass(frozen=True)
class Planned:
    """One fault: seconds after the end of the one before, its name, how long it lasts, a draw of its own."""

    after: float
    name: str
    lasts: float
    draw: int


def schedule(seed: int, database: str) -> Iterator[Planned]:
    """Faults without end, a function of its arguments alone."""
    draw = random.Random(f"{seed} {database}")
    names = sorted(strikes.of(database))
    while True:
        after, lasts = round(draw.uniform(0.5, 6.0), 1), round(draw.uniform(0.0, 7.0), 1)
        yield Planned(after, draw.choice(names), lasts, draw.randrange(10**6))


def run(seed: int, seconds: float, database: str, folder: Path) -> None:
    """One rig under load and faults. Raises AssertionError where an invariant does not hold."""
    template = folder / "template.db"
    make_tables(f"sqlite:///{template}")
    with small_disk(folder / "store", 64) as small:
        if not small:
            say("no small disk can be mounted here: the disk will not be full")
        _run(seed, seconds, Rig(folder, database, template), small)


def _run(seed: int, seconds: float, rig: Rig, small: bool) -> None:
    database = "postgresql" if rig.postgres else "sqlite"
    storm = strikes.Storm(rig, seed, small)
    load = Load(rig, seed)
    try:
        storm.start()
        load.start()
        began = time.monotonic()
        for number, planned in enumerate(schedule(seed, database)):
            time.sleep(planned.after)
            if (at := time.monotonic() - began) > seconds:
                break
            say(f"{at:7.1f} s  {number}: {planned.name} for {planned.lasts:g} s, draw {planned.draw}")
            storm.strike(planned.name, planned.lasts, planned.draw)
        load.stop()
        storm.heal()
        check(rig, 300)
        load.raise_what_failed()
        say(f"{database}: I1 to I8 hold. {summary(rig)}")
    finally:
        load.stop()
        shutil.copy(rig.trace.with_name("history.jsonl"), rig.folder)
        storm.stop()


def say(line: str) -> None:
    """One line at once."""
    print(line, flush=True)


def main() -> int:
    """0 where every invariant holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=["both", "sqlite", "postgresql"], default="both")
    given = parser.parse_args()
    databases = ["sqlite", "postgresql"] if given.database == "both" else [given.database]
    for database in databases:
        say(f"{database}, seed {given.seed}, {given.minutes / len(databases):g} min")
        folder = Path(tempfile.mkdtemp(prefix="gwsoak"))
        try:
            run(given.seed, given.minutes * 60 / len(databases), database, folder)
        except Exception as error:
            traceback.print_exc()
            say(f"BREACH on {database} with seed {given.seed}: {error}\nlogs and history: {folder}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
