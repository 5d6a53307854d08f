"""${message}

Revises: ${down_revision | comma,n}
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


# Older programs go on working on what only adds (nullable columns, tables, indexes). A change that they cannot work with
# (a column dropped, renamed, or needed) says so: op.execute("UPDATE schema_floor SET revision = '...'"), and back below.


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
