"""Who knocks at the worker's door: a worker with its token, or one attempt with the token of its ticket (R24)."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer

from app.deps import SessionDep, SettingsDep
from app.errors import Forbidden, Unauthorized
from app.jobs import attempts
from app.jobs.attempts import TOKEN_PREFIX, Attempt
from app.threads import in_thread

_bearer = HTTPBearer(auto_error=False, scheme_name="WorkerToken", description="the worker's or an attempt's token")
JobId = Annotated[str, Path(max_length=40, description="the job of the ticket")]


async def bearer(request: Request, _: Annotated[object, Security(_bearer)] = None) -> str:
    """The request's token. Raises Unauthorized where there is none, or more than one."""
    headers = request.headers.getlist("authorization")
    scheme, _space, token = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized
    return token.strip()


Token = Annotated[str, Depends(bearer)]


async def worker(token: Token, settings: SettingsDep) -> None:
    """Let in a worker. Raises Forbidden for an attempt's token, which opens its own job alone."""
    if token.startswith(TOKEN_PREFIX):
        raise Forbidden("wrong_token", "An attempt's token opens the routes of its own job and nothing else.")
    if not hmac.compare_digest(token.encode(), settings.worker_token.get_secret_value().encode()):
        raise Unauthorized


async def ticket_token(token: Token) -> str:
    """The token, not looked up yet. Raises Forbidden for any other kind of token."""
    if not token.startswith(TOKEN_PREFIX):
        raise Forbidden("wrong_token", "This route needs the token of a ticket.")
    return token


TicketToken = Annotated[str, Depends(ticket_token)]


async def attempt(token: TicketToken, job_id: JobId, session: SessionDep) -> Attempt:
    """The attempt behind the token. Raises NotFound for another job's."""
    return await in_thread(attempts.identify, session, token, job_id)


AttemptDep = Annotated[Attempt, Depends(attempt)]
WorkerOnly = Depends(worker)
