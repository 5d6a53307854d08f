"""The API, told to die at a point: `FAULT_POINT` names it, and it happens once, while the file `FAULT_ARMED` exists.

- `before_commit`, `after_commit`: around the commit of a POST that carries an Idempotency-Key.
- `after_reply`: a moment after the last byte of the reply to a user's POST was handed over (the event loop may write it
  later). The worker posts too, all the time: its calls do not count.
- `random`: at a random moment of a random request.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

import app.main
from app.idempotency import KeptReply

POINT, ARMED = os.environ["FAULT_POINT"], Path(os.environ["FAULT_ARMED"])
WRITTEN_SECONDS = 0.2


def die(point: str) -> None:
    """Leave without a word, as `kill -9` does, if this is the point."""
    if point == POINT and ARMED.exists():
        ARMED.unlink()
        os._exit(137)


def main() -> int:
    """Serve until then."""
    event.listen(Session, "after_flush", _note)
    event.listen(Session, "before_commit", lambda s: die("before_commit") if s.info.get("kept") else None)
    event.listen(Session, "after_commit", lambda s: die("after_commit") if s.info.pop("kept", False) else None)
    made = app.main.create_app

    def create_app(*given: Any) -> Any:
        application = made(*given)
        application.add_middleware(_LastWord)
        return application

    app.main.create_app = create_app
    return app.main.main()


def _note(session: Session, _context: Any) -> None:
    session.info["kept"] = session.info.get("kept") or any(isinstance(row, KeptReply) for row in session.new)


class _LastWord:
    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        post = scope.get("method") == "POST"
        users = post and scope["path"].startswith("/v1/")
        if POINT == "random" and post and random.random() < 0.3:
            die("random")

        async def last(message: Any) -> None:
            await send(message)
            if users and message["type"] == "http.response.body" and not message.get("more_body"):
                asyncio.get_running_loop().call_later(WRITTEN_SECONDS, die, "after_reply")

        await self._app(scope, receive, last if scope["type"] == "http" else send)


if __name__ == "__main__":
    sys.exit(main())
