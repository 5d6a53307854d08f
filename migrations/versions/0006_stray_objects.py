"""stray objects

Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('stray_objects',
    sa.Column('key', sa.String(length=700), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('marked_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_stray_objects'))
    )


def downgrade() -> None:
    op.drop_table('stray_objects')
