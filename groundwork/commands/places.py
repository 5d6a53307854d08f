"""Where the server is and which key opens it: flags, environment, `groundwork login`, a serve on this machine."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from groundwork.commands.failures import Failure

DEFAULT_URL = "http://127.0.0.1:8420"


@dataclass(frozen=True)
class Place:
    """A server. `told_by` says how we know of it; `key` is None where nothing gives one."""

    url: str
    told_by: str
    key: str | None
    key_told_by: str = ""


def find(url: str | None, key: str | None) -> Place:
    """The server these flags mean, and where they say nothing the environment, the login, or a serve running here.

    A key that `groundwork login` keeps goes to the server it was kept for and to no other.

    Raises:
        Failure: the address cannot be one, or the file of the login cannot be read.
    """
    kept, local = read_login(), local_url()
    told: list[tuple[str | None, str]] = [
        (url, "--url"), (os.environ.get("GROUNDWORK_URL"), "GROUNDWORK_URL"), (kept.get("url"), "groundwork login"),
        (local, f"{data_folder()}/serve.json"), (DEFAULT_URL, "the default"),
    ]  # fmt: skip
    address, by = next((checked(given), by) for given, by in told if given)
    keys: list[tuple[str | None, str]] = [
        (key, "--key"), (os.environ.get("GROUNDWORK_API_KEY"), "GROUNDWORK_API_KEY"),
        (kept.get("key") if kept.get("url") == address else None, "groundwork login"),
    ]  # fmt: skip
    found, key_by = next(((given, by) for given, by in keys if given), (None, ""))
    return Place(address, by, found, key_by)


def is_known(url: str | None) -> bool:
    """Whether anything but the default says where a server is that is not of a data folder."""
    return bool(url or os.environ.get("GROUNDWORK_URL") or read_login())


def checked(url: str) -> str:
    """The address without a slash at its end, or the `/v1` that OpenAI's clients want there. Raises Failure."""
    clean = url.strip().rstrip("/").removesuffix("/v1")
    parts = urlsplit(clean)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failure(f"{url!r} is no address of a server", f"write it like {DEFAULT_URL}")
    return clean


def data_folder() -> Path:
    """Of a `groundwork serve` on this machine."""
    return Path(os.environ.get("GROUNDWORK_DATA_DIR") or "data")


def local_url(folder: Path | None = None) -> str | None:
    """What a running `groundwork serve` left in its data folder, if that is an address of this machine.

    The folder may have come with a download: its word for a server elsewhere would send a key there.
    """
    try:
        told = json.loads(((folder or data_folder()) / "serve.json").read_text())
        url, pid = str(told["url"]), int(told["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:  # it runs, as somebody else
        pass
    except (OSError, OverflowError):
        return None
    return url if _is_ours(urlsplit(url).hostname) else None


def _is_ours(host: str | None) -> bool:
    if not host:
        return False
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def login_file() -> Path:
    """Where `groundwork login` keeps what it was told: the user's own folder for settings."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "groundwork" / "login.json"


def read_login() -> dict[str, str]:
    """`url` and `key`, or nothing. Raises Failure where the file is broken or others may read it."""
    path = login_file()
    try:
        open_to_others = path.stat().st_mode & 0o077
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failure(f"{path} cannot be read ({error})", "delete it and run `groundwork login`") from error
    if not isinstance(kept, dict) or not all(isinstance(kept.get(name), str) for name in ("url", "key")):
        raise Failure(f"{path} is not what `groundwork login` writes", "delete it and run `groundwork login`")
    if open_to_others:
        raise Failure(f"{path} holds a key and can be read by others", f"chmod 600 {path}")
    return {"url": kept["url"], "key": kept["key"]}


def write_login(url: str, key: str) -> Path:
    """Keep both in a file for its owner alone. Raises Failure."""
    path = login_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix="login-")  # 0600 from its first byte
        with os.fdopen(descriptor, "w") as stream:
            json.dump({"url": url, "key": key}, stream)
        Path(part).replace(path)
    except OSError as error:
        raise Failure(f"{path} cannot be written ({error.strerror or error})", "set XDG_CONFIG_HOME") from error
    return path


def forget_login() -> Path | None:
    """Delete what is kept; the file that is gone, or None where there was none."""
    path = login_file()
    try:
        path.unlink()
    except FileNotFoundError:
        return None
    return path
