"""What Prometheus is told of datasets: counted in the database at each scrape."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets.tables import Dataset, Upload


def gather(session: Session) -> Iterable[GaugeMetricFamily]:
    """Datasets by state, what they hold, and uploads in parts that are still open."""
    numbers = (func.sum(Dataset.stored_bytes), func.sum(Dataset.rows), func.sum(Dataset.bad_rows))
    query = select(Dataset.status, func.count(), *numbers).group_by(Dataset.status)
    datasets = GaugeMetricFamily("groundwork_datasets", "Datasets by state", labels=["status"])
    sums = [0, 0, 0]
    for status, count, *more in session.execute(query):
        datasets.add_metric([status], count)
        sums = [known + int(each or 0) for known, each in zip(sums, more, strict=True)]
    yield datasets
    yield GaugeMetricFamily("groundwork_dataset_bytes", "Bytes stored for datasets", value=sums[0])
    rows = GaugeMetricFamily("groundwork_dataset_rows", "Rows that ingests have read", labels=["quality"])
    rows.add_metric(["good"], sums[1])
    rows.add_metric(["bad"], sums[2])
    yield rows
    waiting = session.execute(select(func.count()).select_from(Upload).where(Upload.status == "pending")).scalar_one()
    yield GaugeMetricFamily("groundwork_uploads_open", "Uploads in parts that have not been completed", value=waiting)
