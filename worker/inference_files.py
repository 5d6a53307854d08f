"""Model folders on this machine's disk: fetched once from the API's door, verified, named by their digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import httpx2 as httpx
import structlog

from worker.inference_errors import Busy, Refused

log = structlog.get_logger()
SAFE_PATH = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
SAFE_DIGEST = re.compile(r"[0-9a-f]{64}")
CHUNK = 1 << 20


class ModelFiles:
    """A content-addressed cache: `root/<digest>/` exists only when every byte in it was checked."""

    def __init__(self, root: Path, api_url: str, token: str, max_bytes: int) -> None:
        """`max_bytes` bounds the disk; `in_use` may be set to name digests whose folders must stay."""
        self.in_use: Callable[[], Collection[str]] = tuple
        self._root = root
        self._max_bytes = max_bytes
        self._client = httpx.Client(
            base_url=api_url, headers={"Authorization": f"Bearer {token}"}, timeout=httpx.Timeout(30, connect=5)
        )
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob("part-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def folder(self, model_id: str, digest: str) -> Path:
        """The model's folder, fetched if it is not there yet.

        Raises:
            Refused: 404, the API no longer has this model.
            Busy: the API cannot be reached, or what it sent does not match its digest.
        """
        if not SAFE_DIGEST.fullmatch(digest):
            raise Refused(422, "invalid_digest", "digest must be 64 hexadecimal digits", "digest")
        final = self._root / digest
        if final.is_dir():
            os.utime(final)  # recently used
            return final
        try:
            return self._fetch(model_id, digest, final)
        except httpx.HTTPError as error:
            words = f"The model's files could not be fetched: {type(error).__name__}."
            raise Busy("model_fetch_failed", words) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _fetch(self, model_id: str, digest: str, final: Path) -> Path:
        listing = self._listing(model_id)
        if listing["digest"] != digest:
            raise Refused(404, "not_found", f"No model with id {model_id!r}.", "model")
        part = Path(tempfile.mkdtemp(prefix="part-", dir=self._root))
        try:
            for file in listing["files"]:
                download(self._client, file, part)
            if not (part / "manifest.json").exists():
                keys = ("path", "size", "sha256")
                manifest = {"files": [{key: file[key] for key in keys} for file in listing["files"]]}
                (part / "manifest.json").write_text(json.dumps(manifest))
            commit(part, final)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        log.info("model_fetched", model=model_id, digest=digest, files=len(listing["files"]))
        self._trim(keep=final)
        return final

    def _listing(self, model_id: str) -> dict[str, Any]:
        reply = self._client.get(f"/internal/v1/models/{model_id}")
        if reply.status_code == 404:
            raise Refused(404, "not_found", f"No model with id {model_id!r}.", "model")
        reply.raise_for_status()
        listing: dict[str, Any] = reply.json()
        return listing

    def _trim(self, keep: Path) -> None:
        """Drop the least recently used folders over the bound. A loaded model still reads its tokenizer."""
        stay = {keep.name, *self.in_use()}
        found = [folder for folder in self._root.iterdir() if SAFE_DIGEST.fullmatch(folder.name)]
        folders = sorted(found, key=lambda folder: folder.stat().st_mtime)
        sizes = {folder: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in folders}
        total = sum(sizes.values())
        for folder in folders:
            if total <= self._max_bytes:
                return
            if folder.name not in stay:
                shutil.rmtree(folder, ignore_errors=True)
                total -= sizes[folder]


def download(client: httpx.Client, file: Mapping[str, Any], part: Path) -> None:
    """`{"path", "size", "sha256", "url"}` of the API's door into the folder `part`, hashed as it arrives.

    Raises:
        Busy: size or digest differ, or the path leads elsewhere.
        httpx.HTTPError: the API cannot be reached, or refused.
    """
    path = str(file["path"])
    if not SAFE_PATH.fullmatch(path) or ".." in path.split("/"):
        raise Busy("model_fetch_failed", f"A file with an unsafe path is listed: {path!r}.")
    target = part / path
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with client.stream("GET", str(file["url"])) as reply, target.open("wb") as out:
        reply.raise_for_status()
        for chunk in reply.iter_bytes(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if size != file["size"] or digest.hexdigest() != file["sha256"]:
        raise Busy("model_fetch_failed", f"The file {path!r} does not match its digest.")


def commit(part: Path, final: Path) -> None:
    """Rename into place; another process may have done so first, with the same bytes."""
    try:
        part.rename(final)
    except OSError:
        if not final.is_dir():
            raise
