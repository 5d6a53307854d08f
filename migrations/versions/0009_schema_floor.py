"""the oldest program that may work on this schema

Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    floor = op.create_table('schema_floor', sa.Column('revision', sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint('revision', name=op.f('pk_schema_floor'))
    )
    op.bulk_insert(floor, [{'revision': '0009'}])


def downgrade() -> None:
    op.drop_table('schema_floor')
