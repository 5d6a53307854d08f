"""the span that made a job

Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('jobs', sa.Column('traceparent', sa.String(length=55), nullable=True))


def downgrade() -> None:
    # Not in batch mode: that drops the table on SQLite, and what hangs on its rows with it.
    op.drop_column('jobs', 'traceparent')
