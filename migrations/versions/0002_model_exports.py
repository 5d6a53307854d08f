"""model exports

Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('model_exports',
    sa.Column('model_id', sa.String(length=40), nullable=False),
    sa.Column('format', sa.String(length=16), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('key', sa.String(length=700), nullable=False),
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_model_exports_model_id_models'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('model_id', 'format', name=op.f('pk_model_exports'))
    )


def downgrade() -> None:
    op.drop_table('model_exports')
