"""Which commands there are, and under which name each group hangs."""

from __future__ import annotations

import typer

from groundwork.commands import (
    account,
    catalogue,
    completion,
    datasets,
    inference,
    job_details,
    jobs,
    keys,
    models,
    reports,
    search,
    submit,
    watch,
)


def attach(app: typer.Typer, key_group: typer.Typer) -> None:
    """Put every command under `app`, those about keys under a group that is there already."""
    keys.attach(key_group)
    for job_module in (submit, watch, job_details):
        job_module.attach(jobs.group)
    search.attach(datasets.group)
    for group in (datasets.group, jobs.group, models.group, reports.group):
        app.add_typer(group, rich_help_panel="Work")
    for module in (submit, inference, search, catalogue, account, completion):
        module.attach_top(app)
