"""A backup of everything, taken while jobs run: the database, then every object of the store, then a manifest.

    DIR/groundwork.db | database.dump     the database at one moment
    DIR/store/<key>                       the objects; written once and never changed, so a second backup into the same
                                          folder copies what is new, and deletes what is gone
    DIR/secrets.json                      where `groundwork serve` keeps them
    DIR/manifest.json                     last: sizes and digests. Without it the backup is not whole

Objects come before their rows and go after them. So whatever the database's copy names was there when it was made; if
something goes while the objects are copied, the database is copied once more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.db import make_engine
from app.dumps import POSTGRESQL, SQLITE, BackupError, dump, load, name_of
from app.jobs import sweeps
from app.migrate import checked_revision, migrate
from app.platform import Platform, session_scope
from app.settings import Settings
from app.storage import BLOCK, Store

FORMAT = 1
ROUNDS = 5
_FOLDERS = ("datasets", "uploads", "jobs", "models", "imports")
_PURPOSE = b"groundwork backup 1"

File = dict[str, Any]
"""`size` and `sha256` of one object."""


@dataclass(frozen=True)
class Done:
    """What a backup or a restore did; `requeued`: jobs whose workers were not brought back with them."""

    objects: int
    bytes: int
    copied: int
    requeued: int = 0


def backup(platform: Platform, target: Path) -> Done:
    """Write or renew the backup in `target`. Raises BackupError."""
    settings, known = platform.settings, _reusable(target)
    (target / "store").mkdir(parents=True, exist_ok=True, mode=0o700)
    (target / "manifest.json").unlink(missing_ok=True)
    for name in (SQLITE, POSTGRESQL):
        (target / name).unlink(missing_ok=True)
    database, copied = target / name_of(settings.database), 0
    for _ in range(ROUNDS):
        before = _objects(platform.store)
        dump(settings.database, database)
        wanted = before | _objects(platform.store)
        new, gone = _copy(platform.store, wanted, known, target / "store")
        copied += new
        if not gone:
            break
    else:
        raise BackupError(f"objects were deleted during each of {ROUNDS} attempts; try again when fewer are")
    for key in set(known) - set(wanted):
        (target / "store" / str(known.pop(key)["path"])).unlink(missing_ok=True)
    _keep_secrets(settings.data_dir, target)
    found = {
        "format": FORMAT, "schema": _revision(settings), "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "database": {"name": database.name, "size": database.stat().st_size, "sha256": _digest(database)},
        "secret_key": _fingerprint(settings), "objects": sorted(known.values(), key=lambda file: str(file["path"])),
    }  # fmt: skip
    part = target / "manifest.json.part"
    part.write_text(json.dumps(found, indent=1))
    part.replace(target / "manifest.json")
    return Done(len(known), sum(file["size"] for file in known.values()), copied)


def restore(settings: Settings, source: Path) -> Done:
    """Fill an empty database and the store from the backup in `source`. Raises BackupError or SchemaError."""
    found = read_manifest(source)
    if not hmac.compare_digest(found["secret_key"], _fingerprint(settings)):
        raise BackupError("GROUNDWORK_SECRET_KEY is not the one of the backup: every API key would be void")
    if _revision(settings, maybe_missing=True) is not None:
        raise BackupError("the database is not empty; a restore fills an empty one")
    database = source / found["database"]["name"]
    if _digest(database) != found["database"]["sha256"]:
        raise BackupError(f"{database} is damaged")
    store, copied = Store.open(settings.store), 0
    for file in found["objects"]:
        copied += _put_back(store, file, source / "store" / file["path"])
    load(database, settings.database)
    migrate(settings)
    platform = Platform.open(settings)
    with closing(platform), session_scope(platform) as session:
        requeued = sweeps.requeue_held(session)
    return Done(len(found["objects"]), sum(file["size"] for file in found["objects"]), copied, requeued)


def read_manifest(source: Path) -> dict[str, Any]:
    """Raises BackupError where there is no whole backup that this program understands."""
    try:
        found: dict[str, Any] = json.loads((source / "manifest.json").read_text())
    except FileNotFoundError:
        raise BackupError(f"{source} has no manifest.json: no backup, or one that was not finished") from None
    except ValueError:
        raise BackupError(f"{source / 'manifest.json'} is damaged") from None
    if found.get("format") != FORMAT:
        raise BackupError(f"the backup has format {found.get('format')!r}; this program reads {FORMAT}")
    return found


def _reusable(target: Path) -> dict[str, File]:
    """What an earlier backup in the same folder holds. Raises BackupError where the folder is somebody else's."""
    if (target / "manifest.json").exists():
        return {str(file["path"]): file for file in read_manifest(target)["objects"]}
    strangers = {path.name for path in target.iterdir()} if target.exists() else set()
    if strangers - {"store", "secrets.json", "manifest.json.part", *_dumps()}:
        raise BackupError(f"{target} is not empty and holds no backup")
    shutil.rmtree(target / "store", ignore_errors=True)  # of one that was not finished: nobody knows its digests
    return {}


def _dumps() -> Iterator[str]:
    for name in (SQLITE, POSTGRESQL):
        yield from (name, f"{name}.part")


def _objects(store: Store) -> dict[str, int]:
    return {key: size for folder in _FOLDERS for key, size in store.list(folder)}


def _copy(store: Store, wanted: dict[str, int], known: dict[str, File], target: Path) -> tuple[int, bool]:
    """How many objects were copied, and whether one was gone by then; `known` becomes what is in `target`."""
    copied, gone = 0, False
    for key, size in wanted.items():
        if key in known and known[key]["size"] == size and (target / key).is_file():
            continue
        place = target / key
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            known[key] = {"path": key, **_write(store.read(key), place)}
        except FileNotFoundError:
            gone = True
            place.unlink(missing_ok=True)
            continue
        copied += 1
    return copied, gone


def _write(blocks: Iterator[bytes], place: Path) -> File:
    digest, size = hashlib.sha256(), 0
    with place.open("wb") as sink:
        for block in blocks:
            digest.update(block)
            size += len(block)
            sink.write(block)
        sink.flush()
        os.fsync(sink.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def _put_back(store: Store, file: File, place: Path) -> bool:
    """False where the store has it already: a restore that was killed goes on where it was."""
    key = str(file["path"])
    if store.exists(key) and store.size(key) == file["size"]:
        return False
    try:
        if _digest(place) != file["sha256"]:
            raise BackupError(f"{place} is damaged")
    except FileNotFoundError:
        raise BackupError(f"{place} is missing") from None
    store.put(key, _blocks(place), limit=file["size"])
    return True


def _blocks(place: Path) -> Iterator[bytes]:
    with place.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block


def _digest(place: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(place):
        digest.update(block)
    return digest.hexdigest()


def _keep_secrets(data_dir: Path, target: Path) -> None:
    kept, place = data_dir / "secrets.json", target / "secrets.json"
    place.unlink(missing_ok=True)
    if kept.is_file():
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
            sink.write(kept.read_bytes())


def _fingerprint(settings: Settings) -> str:
    """Tells two keys apart and says nothing of either."""
    return hmac.new(settings.secret_key.get_secret_value().encode(), _PURPOSE, hashlib.sha256).hexdigest()[:32]


def _revision(settings: Settings, maybe_missing: bool = False) -> str | None:
    """The database's schema. Raises BackupError where it has none."""
    if maybe_missing and settings.database.startswith("sqlite"):
        file = Path(settings.database.removeprefix("sqlite:///"))
        if not file.exists():
            return None
    engine = make_engine(settings.database)
    try:
        with engine.connect() as connection:
            revision = checked_revision(connection)
    finally:
        engine.dispose()
    if revision is None and not maybe_missing:
        raise BackupError("the database has no schema yet; there is nothing to back up")
    return revision
