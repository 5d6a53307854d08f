"""The worker role: `python -m worker.main`, or `groundwork worker`. `--check` = exit 0 if it made a loop lately.

With a broker, Celery waits for the bell and a job runs in a thread of its pool (no fork, no torch here). Without one,
and while the broker is away or its consumer is stuck, the worker asks the API by itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any

from celery import Celery
from celery.platforms import SecurityWarning
from celery.signals import setup_logging, worker_shutting_down
from celery.worker import state
from pydantic import ValidationError

from ssl_core import tracing
from worker import logs
from worker.launch import LEAST_ABI, landlock_abi
from worker.settings import WorkerSettings
from worker.supervisor import Supervisor
from worker.tasks import register

STALE_SECONDS = 60.0
# With prefetch off, Celery looks for the next bell only when its loop turns, and a finished task does not turn it.
LOOP_SECONDS = 0.05
DEAF_SECONDS = 2.0
ASK_ANYWAY_SECONDS = 30.0
log = logging.getLogger("worker")


def make_celery(settings: WorkerSettings) -> Celery:
    """The consumer's configuration (R3); tests/worker/test_main.py holds a snapshot of it."""
    celery = Celery("groundwork", broker=settings.broker_url, set_as_current=False)
    celery.conf.update(
        accept_content=["json"], task_serializer="json", task_ignore_result=True, task_acks_late=False,
        task_default_queue=settings.queue, task_create_missing_queues=True,
        worker_prefetch_multiplier=1, worker_disable_prefetch=True,
        worker_concurrency=settings.slots + settings.short_slots,
        worker_pool="threads", worker_hijack_root_logger=False, worker_redirect_stdouts=False,
        worker_enable_remote_control=False, worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True, broker_connection_retry_on_startup=True, broker_connection_max_retries=None,
        broker_connection_timeout=3, broker_heartbeat=0,
        broker_transport_options={
            "visibility_timeout": 3600, "socket_connect_timeout": 3, "socket_keepalive": True,
            "retry_on_timeout": True, "health_check_interval": 10,
        },
    )  # fmt: skip
    return celery


class Watch(threading.Thread):
    """Touches the sign of life, and asks the API for work while the bell cannot be heard."""

    def __init__(self, settings: WorkerSettings, supervisor: Supervisor) -> None:
        super().__init__(name="watch", daemon=True)
        self._settings, self._supervisor = settings, supervisor
        self._asked_at = float("-inf")
        self.consumer_turned_at = float("-inf")

    def run(self) -> None:
        """Until the worker drains. A job it finds runs in a thread of its own, so that the loop goes on."""
        while not self._supervisor.drain.wait(self._settings.poll_seconds):
            now = time.monotonic()
            # The consumer's loop stands still while it has no broker, and where it hangs. Now and then we ask anyway:
            # a connection can be dead without a sign.
            if now - self.consumer_turned_at > DEAF_SECONDS or now - self._asked_at > ASK_ANYWAY_SECONDS:
                self._asked_at = now
                threading.Thread(target=self._supervisor.ring, args=(None,), name="poll", daemon=True).start()
            self._settings.alive_file.touch()


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; 0 after a clean drain."""
    try:
        settings = WorkerSettings()
        if "--check" in (sys.argv[1:] if arguments is None else arguments):
            return _check(settings)
        logs.configure(settings.log_level)
        tracing.configure("worker")
        for chatty in ("httpx2", "celery.worker.strategy", "celery.app.trace"):
            logging.getLogger(chatty).setLevel("WARNING")
        if settings.sandbox == "required" and landlock_abi() < LEAST_ABI:
            raise ValueError("GROUNDWORK_SANDBOX is `required`, and this kernel has no Landlock (Linux 5.19 and newer)")
        supervisor = Supervisor(settings)
    except (ValidationError, OSError, ValueError) as error:
        print(f"groundwork worker: {_one_line(error)}", file=sys.stderr)
        return 2
    def stop(*_: Any) -> None:
        supervisor.drain.set()
        state.should_stop = os.EX_OK  # should Celery be on its way up: its own handlers come later than the first job

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    supervisor.recover()
    watch = Watch(settings, supervisor)
    watch.start()
    log.info("ready: queue %s, %d slot(s), API %s", settings.queue, settings.slots, settings.api_url)
    if settings.broker_url:
        _consume(settings, supervisor, watch)
    else:
        supervisor.drain.wait()
    return _leave(settings, supervisor)


def _consume(settings: WorkerSettings, supervisor: Supervisor, watch: Watch) -> None:
    celery = make_celery(settings)
    register(celery, supervisor)

    def begin_drain(**_: Any) -> None:
        supervisor.drain.set()
        # Celery's own warm shutdown waits for ever; this process does not.
        guard = threading.Timer(settings.drain_seconds + 15, os._exit, args=(1,))
        guard.daemon = True
        guard.start()

    worker_shutting_down.connect(begin_drain, weak=False)
    setup_logging.connect(lambda **_: None, weak=False)  # whoever answers this keeps his own logging
    # Its fear of root is about pickled messages; ours are JSON, and hold an id.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Workers need nothing of one another: no gossip, and no second spent looking for neighbours.
    alone = dict.fromkeys(("without_mingle", "without_gossip", "without_heartbeat"), True)
    consumer = celery.Worker(hostname=f"{settings.queue}@{os.getpid()}", queues=[settings.queue], quiet=True, **alone)

    def turned() -> None:
        watch.consumer_turned_at = time.monotonic()

    consumer.timer.call_repeatedly(LOOP_SECONDS, turned)
    with contextlib.suppress(SystemExit):
        consumer.start()


def _leave(settings: WorkerSettings, supervisor: Supervisor) -> int:
    supervisor.drain.set()
    idle = supervisor.wait_until_idle(settings.drain_seconds + 5)
    log.info("stopped" if idle else "stopped with a job still held; its lease will expire")
    supervisor.close()
    tracing.flush()
    logging.shutdown()
    # Threads that wait for a dead API must not keep the process; its engines die with it.
    os._exit(0 if idle else 1)


def _check(settings: WorkerSettings) -> int:
    try:
        age = time.time() - settings.alive_file.stat().st_mtime
    except FileNotFoundError:
        age = float("inf")
    return 0 if age < max(STALE_SECONDS, 5 * settings.poll_seconds) else 1


def _one_line(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"GROUNDWORK_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())


if __name__ == "__main__":
    sys.exit(main())
