"""Where a reader of a live stream is: what a broken connection goes on from."""

from __future__ import annotations

import json

import httpx2

from groundwork.rest.values import LiveEvent


class Place:
    """The last event that was seen, and how often nothing came since."""

    def __init__(self, after: str | None) -> None:
        self._seen = after
        self.tries = 0
        self.done, self.lost = False, "it ended early"

    def headers(self) -> dict[str, str]:
        """Of one more connection, which goes on from here."""
        self.tries += 1
        return {"Accept": "text/event-stream", **({"Last-Event-ID": self._seen} if self._seen else {})}

    def saw(self, sent: httpx2.ServerSentEvent) -> LiveEvent:
        """The event that was sent, once its place is kept."""
        data = json.loads(sent.data)
        self._seen, self.tries, self.done = sent.id or self._seen, 1, sent.event == "done"
        return LiveEvent({"name": sent.event, "id": sent.id, "status": data.get("status"), "data": data})
