"""jobs made of jobs

Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('jobs') as table:
        table.add_column(sa.Column('parent_id', sa.String(length=40), nullable=True))
        table.create_index('ix_jobs_parent_id', ['parent_id'])
    op.create_table('job_parts',
    sa.Column('job_id', sa.String(length=40), nullable=False),
    sa.Column('name', sa.String(length=100), nullable=False),
    sa.Column('part_id', sa.String(length=40), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_job_parts_job_id_jobs'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['part_id'], ['jobs.id'], name=op.f('fk_job_parts_part_id_jobs'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('job_id', 'name', name=op.f('pk_job_parts'))
    )
    op.create_index('ix_job_parts_part_id', 'job_parts', ['part_id'])


def downgrade() -> None:
    op.drop_table('job_parts')
    # Not in batch mode: that drops the table on SQLite, and what hangs on its rows with it.
    op.drop_index('ix_jobs_parent_id', 'jobs')
    op.drop_column('jobs', 'parent_id')
