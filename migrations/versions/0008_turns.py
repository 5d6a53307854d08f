"""turns

Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('jobs', sa.Column('rank', sa.Integer(), server_default='0', nullable=False))
    op.drop_index('ix_jobs_claim', 'jobs')
    op.create_index('ix_jobs_claim', 'jobs', ['status', 'queue', 'project_id', 'rank', 'available_at', 'id'])
    op.create_index('ix_jobs_turn', 'jobs', ['project_id', 'queue', 'started_at'])
    op.create_index('ix_jobs_wait', 'jobs', ['status', 'available_at'])
    op.create_index('ix_jobs_live', 'jobs', ['project_id', 'status', 'id'])
    op.create_index('ix_jobs_rung', 'jobs', ['status', 'queue', 'rung_at', 'id'])


def downgrade() -> None:
    op.drop_index('ix_jobs_rung', 'jobs')
    op.drop_index('ix_jobs_live', 'jobs')
    op.drop_index('ix_jobs_wait', 'jobs')
    op.drop_index('ix_jobs_turn', 'jobs')
    op.drop_index('ix_jobs_claim', 'jobs')
    op.drop_column('jobs', 'rank')
    op.create_index('ix_jobs_claim', 'jobs', ['status', 'queue', 'available_at', 'id'])
