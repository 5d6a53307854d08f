"""F24: a new version takes over under load, the old worker reports to it, and the old program comes back."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import inspect

from app.migrate import head
from groundwork.folder import free_port
from tests.app.conftest import ROOT, environment
from tests.faults.history import Witness
from tests.faults.invariants import check
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.faults.rig import Rig, started
from tests.services import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
NEXT = f"{int(head()) + 1:04}"
MIGRATION = f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = {NEXT!r}, {head()!r}, None, None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("colour", sa.String(20), nullable=True))
    op.create_index("ix_jobs_colour", "jobs", ["colour"])


def downgrade() -> None:
    op.drop_index("ix_jobs_colour")
    op.drop_column("jobs", "colour")
"""


def next_version(folder: Path) -> Path:
    """The whole program with one migration more."""
    for part in ("app", "groundwork", "migrations", "ssl_core", "worker"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "migrations" / "versions" / f"{NEXT}_colour.py").write_text(MIGRATION)
    return folder


class Balancer(Proxy):
    """In front of the API: what comes next goes to the newer process, and the older one leaves once it has answered."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        super().__init__(int(rig.url.rpartition(":")[2]))

    def hand_over(self, code: Path) -> None:
        """Start an API from this tree beside the one that runs, send it all that comes, and end the other."""
        old, port = self._rig.api, free_port()
        assert old is not None
        self._rig.code = code
        self._rig.start_api(wait=False, GROUNDWORK_PORT=str(port))
        wait_for(lambda: _ready(port), 90)
        self.target = port
        old.send_signal(signal.SIGTERM)
        assert old.wait(40) == 0, self._rig.tails()


def _ready(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=2, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def test_f24_a_version_with_a_migration_comes_and_goes_under_load(tmp_path: Path, sqlite_template: Path) -> None:
    newer = next_version(tmp_path / "newer")
    (home := tmp_path / "rig").mkdir()
    rigs = started(home, "postgresql", sqlite_template, lease_seconds=60.0, heartbeat_seconds=2.0)
    rig = next(rigs)
    try:
        with Balancer(rig) as balancer:
            rig.kill_worker()
            rig.url = balancer.url
            rig.client.close()
            rig.client = Witness(rig.url, rig.key, rig.history)
            rig.start_worker(api_url=rig.url)
            long = rig.submit(steps=900, delay=0.05)
            rig.wait_step(long, 5)
            load = Load(rig, 24)
            load.start()
            migrated = subprocess.run(
                [sys.executable, "-m", "groundwork.cli", "migrate"], cwd=newer, capture_output=True, text=True,
                env=environment(rig.settings) | {"PYTHONPATH": str(newer)},
            )  # fmt: skip
            assert migrated.returncode == 0, migrated.stderr
            assert "colour" in {column["name"] for column in inspect(rig.platform.engine).get_columns("jobs")}
            balancer.hand_over(newer)
            assert rig.endings(rig.submit(steps=5)) == ["succeeded"]
            balancer.hand_over(ROOT)
            assert rig.endings(rig.submit(steps=5)) == ["succeeded"]
            load.stop()
            load.raise_what_failed()
            assert rig.endings(long) == ["succeeded"], "the old worker lost its job to the deployment"
            check(rig)
            failed = [each for each in rig.history.read() if not 200 <= each.status < 500]
            assert failed == []
    finally:
        rigs.close()
