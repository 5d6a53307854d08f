"""The API role: `groundwork api`, or `uvicorn app.main:create_app --factory`. Never imports torch (R33)."""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError, DBAPIError

from app import failures, health, reaper
from app.auth import routes as auth
from app.auth.limiter import Limiter
from app.batches import routes as batches
from app.catalogue import routes as catalogue
from app.datasets import routes as datasets
from app.deps import Places
from app.edge import add_routes
from app.fine_tuning import routes as fine_tuning
from app.inference import routes as inference
from app.internal import routes as internal
from app.jobs import routes as jobs
from app.live import DrainingServer
from app.middleware import RequestEdge
from app.migrate import SchemaError, check_schema, hold_alone
from app.models import routes as models
from app.openapi import DESCRIPTION, TAGS
from app.platform import Platform
from app.search import routes as search
from app.settings import Settings, get_settings
from app.telemetry import configure_logging
from app.web import routes as web
from app.webhooks import routes as webhooks
from app.wire import BoundedProtocol
from ssl_core import tracing

GRACE_SECONDS = 10  # for open requests at shutdown; streams are told to reconnect


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Connects to nothing: a database that is down shows in /readyz, not as a dead process (F8)."""
    platform = Platform.open(settings or get_settings())
    configure_logging(platform.settings.log_level)
    tracing.configure("api")
    # `/docs` is served from the installed package: a platform of one's own asks nothing of anybody else's server.
    app = FastAPIOffline(
        title="Groundwork",
        version="1",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=_lifespan,
        redirect_slashes=False,
        redoc_url=None,
        static_url="/docs/assets",
        swagger_ui_parameters={"validatorUrl": None},
    )
    app.state.platform = platform
    app.state.in_flight = set()
    app.state.places = Places()
    app.state.limiter = Limiter.open(platform.settings.requests_per_minute, platform.settings.broker_url)
    app.add_middleware(RequestEdge)
    failures.install(app)
    # Those first that are asked for most.
    often = (jobs, internal, health, inference, datasets, search)
    for routes in (*often, models, fine_tuning, batches, auth, webhooks, catalogue):
        add_routes(app, routes.router)
    app.include_router(web.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    platform: Platform = app.state.platform
    background = reaper.start(platform)
    yield
    background.stop()
    platform.close()


def __getattr__(name: str) -> FastAPI:
    """`app.main:app`, made when it is first asked for: importing this module needs no environment."""
    if name != "app":
        raise AttributeError(name)
    globals()["app"] = create_app()
    made: FastAPI = globals()["app"]
    return made


def main() -> int:
    """Serve until SIGTERM or Ctrl-C. Whatever keeps it from starting is one line and exit status 1 (B82)."""
    try:
        settings = get_settings()
        configure_logging(settings.log_level)
        app = create_app(settings)
        listening = _listen(settings)
        alone = hold_alone(settings)
    except ValidationError as error:
        wrong = [f"GROUNDWORK_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()]
        return _refuse("; ".join(wrong))
    except (OSError, ValueError, ArgumentError, SchemaError) as error:
        return _refuse(str(error))
    try:
        check_schema(settings)
    except SchemaError as error:
        return _refuse(str(error))
    except DBAPIError:
        structlog.get_logger(__name__).warning("database_unavailable_at_start")  # /readyz says so until it is back
    with alone, listening:
        host, port = listening.getsockname()[:2]
        structlog.get_logger(__name__).info("listening", url=f"http://{host}:{port}")
        return 0 if serve(app, listening) else 1


def serve(app: FastAPI, listening: socket.socket) -> bool:
    """Serve until SIGTERM or SIGINT, then answer what is open and end the live streams; whether it started at all."""
    # The server raises the signal that stopped it once more when it is done; having drained, we exit with 0.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: None)
    _spare_the_collector()
    server = DrainingServer(server_config(app))
    server.run(sockets=[listening])
    return server.started


def _spare_the_collector() -> None:
    """What was imported stays: the garbage collector need not walk through it each time a few requests made garbage."""
    gc.collect()
    gc.freeze()
    gc.enable()  # which `groundwork api` has kept off while everything was imported
    gc.set_threshold(10_000, 20, 20)


def server_config(app: FastAPI) -> uvicorn.Config:
    """One process; httptools refuses what request smuggling lives on, uvloop is the faster loop; no web sockets."""
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise OSError(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}.") from None
    listening.listen(2048)
    return listening


def _refuse(reason: str) -> int:
    print(f"groundwork api: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
