"""What went wrong, in one line, with what to do next, and the status that the program ends with.

0 done, 1 the server refused it or the job failed, 2 the command cannot be meant so, 3 an extra is not installed,
4 no connection, 130 interrupted.
"""

from __future__ import annotations

import sys

REFUSED, USAGE, NO_EXTRA, NO_CONNECTION, INTERRUPTED = 1, 2, 3, 4, 130

_BY_CODE = {
    "invalid_api_key": "run `groundwork login`, or set GROUNDWORK_API_KEY to a key that is valid",
    "insufficient_scope": "use a key that has this scope (`groundwork keys create --scopes read,write,admin`)",
    "not_ready": "wait until it is ready: `groundwork datasets show ID`",
    "invalid_state": "look where it stands: `groundwork jobs show ID`",
    "last_admin_key": "make another admin key first: `groundwork keys create`",
    "in_use": "wait for that job, or `groundwork jobs cancel` it",
    "not_embedded": "`groundwork embed MODEL --dataset DATASET -o vectors.parquet` embeds it",
    "model_required": "say whose vectors with --model",
    "not_exported": "run the command with --wait, or `groundwork jobs submit --type export`",
    "concurrency_limit": "wait until some of your jobs have ended: `groundwork jobs list`",
    "rate_limited": "wait a moment and run it again",
    "quota_exceeded": "delete what is no longer needed: `groundwork datasets delete ID`",
    "hub_not_allowed": "ask the operator to set GROUNDWORK_ALLOW_HUB, or import a zip of the folder",
}
_BY_STATUS = {
    401: "run `groundwork login`, or set GROUNDWORK_API_KEY to a key that is valid",
    403: "use a key with the scope that this needs",
    404: "look for its id with `list`",
    409: "look at its state with `show`, then run it again",
    413: "split it into smaller files",
    422: "correct it and run it again",
    429: "wait a moment and run it again",
    503: "run it again in a moment; `groundwork doctor` tells which part is down",
    507: "make room on the server's disk",
}
_LISTS = {"ds": "datasets", "mdl": "models", "job": "jobs", "key": "keys"}


class Failure(Exception):
    """A command that cannot go on. `advice` is what to do next, `status` the exit status.

    Where a server refused it, `code` is its word for why and `param` the field at fault.
    """

    def __init__(self, message: str, advice: str = "", status: int = USAGE) -> None:
        super().__init__(message)
        self.message, self.advice, self.status = message, advice, status
        self.code: str | None = None
        self.param: str | None = None


def tell(failure: Failure) -> int:
    """One line on stderr; the exit status."""
    line = " ".join(failure.message.split()).rstrip(".")
    advice = f" — {failure.advice}" if failure.advice else ""
    print(f"groundwork: {line}{advice}", file=sys.stderr)
    return failure.status


def refusal(status: int, code: str | None, message: str, param: str | None = None) -> Failure:
    """What a server's error envelope becomes."""
    advice = _BY_CODE.get(code or "") or _BY_STATUS.get(status, "`groundwork doctor` tells which part is down")
    if status == 404:
        named = next((words for prefix, words in _LISTS.items() if f"'{prefix}_" in message), None)
        advice = f"`groundwork {named} list` shows what is there" if named else "is --url right? `groundwork whoami`"
    if param and param != "id" and param not in message:
        message = f"{param}: {message}"
    failure = Failure(message, advice, REFUSED)
    failure.code, failure.param = code, param
    return failure
