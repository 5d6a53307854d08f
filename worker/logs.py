"""Logs of the worker and of inference: one JSON object a line on stderr, with the job's id where there is one.

Keys and attempt tokens are cut, as in the API's.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import structlog

from ssl_core.redaction import redacted

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def configure(level: str) -> None:
    """Structlog's lines and the libraries' own alike. Raises ValueError for an unknown level."""
    formatter = structlog.stdlib.ProcessorFormatter
    rendered: list[Any] = [
        formatter.remove_processors_meta,
        structlog.processors.JSONRenderer(),
        lambda _logger, _method, line: redacted(str(line)),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(foreign_pre_chain=_SHARED, processors=rendered))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    structlog.configure(
        processors=[*_SHARED, formatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def thread(work: Callable[[], None], name: str) -> threading.Thread:
    """A daemon thread whose lines carry the same ids as those of the thread that makes it."""
    return threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True)
