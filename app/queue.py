"""The doorbell. The only file on this side that knows Celery (docs/contracts.md §1, reliability.md R3).

A message is the job's id and nothing else. Losing it, or ringing twice, changes nothing but latency.
"""

from __future__ import annotations

from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

log = structlog.get_logger(__name__)

TASK = "groundwork.ring"
MAX_BACKLOG = 1000
"""Doorbells waiting in one queue beyond which re-ringing adds nothing but memory."""
_SECONDS = 2.0

CONFIG: dict[str, Any] = {
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "result_backend": None,
    "task_acks_late": False,
    "task_reject_on_worker_lost": False,
    "task_publish_retry": False,
    "task_create_missing_queues": True,
    "task_send_sent_event": False,
    "worker_send_task_events": False,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    # An early-acknowledged doorbell has nothing to give back; the default flips in Celery 6.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_enable_remote_control": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_timeout": _SECONDS,
    "broker_pool_limit": 2,
    "broker_transport_options": {
        "socket_timeout": _SECONDS,
        "socket_connect_timeout": _SECONDS,
        "socket_keepalive": True,
        "max_retries": 0,
        "retry_on_timeout": False,
        "visibility_timeout": 3600,
    },
    "enable_utc": True,
}


class BrokerDown(Exception):
    """The broker cannot be reached just now; the rows that wait for it stay where they are."""


class Doorbell:
    """Rings workers over a Celery broker; with no broker every call is a no-op, and workers poll."""

    def __init__(self, url: str) -> None:
        self._app: Celery | None = None
        self._down: tuple[type[BaseException], ...] = ()
        if url:
            self._app = Celery("groundwork", broker=url, set_as_current=False)
            self._app.conf.update(CONFIG)
            connection = self._app.connection_for_write()
            self._down = (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)

    @property
    def exists(self) -> bool:
        """Whether a broker is configured at all."""
        return self._app is not None

    def ring(self, job_id: str, queue: str) -> None:
        """Publish one doorbell. Raises BrokerDown within seconds."""
        if self._app is None:
            return
        try:
            self._app.send_task(TASK, args=[job_id], queue=queue, ignore_result=True, retry=False)
        except self._down as error:
            raise BrokerDown(type(error).__name__) from error

    def backlog(self, queue: str) -> int:
        """Doorbells that wait in the queue. Raises BrokerDown."""
        if self._app is None:
            return 0
        try:
            with self._app.connection_for_write() as connection:
                return int(connection.default_channel.queue_declare(queue=queue).message_count)
        except self._down as error:
            raise BrokerDown(type(error).__name__) from error

    def reachable(self) -> bool:
        """Whether the broker answers; True where none is configured."""
        try:
            self.backlog("cpu")
        except BrokerDown:
            return False
        return True

    def close(self) -> None:
        """Give the connections back."""
        if self._app is not None:
            self._app.close()
