"""Make, rotate and revoke keys; make projects. Secrets leave here once, as the return value of what made them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, func, or_, select, text
from sqlalchemy.orm import Session

from app.auth import recent
from app.auth.guard import Principal
from app.auth.secret import key_text, keyed_hash, new_secret
from app.auth.tables import ApiKey, Project
from app.db import after_commit, make_engine, make_sessions, now_ms
from app.errors import Conflict, Forbidden, NotFound, Unprocessable
from app.ids import new_id
from app.settings import Settings

ALL_SCOPES = ("read", "write", "admin")
_BOOTSTRAP_LOCK = 0x67726F756E64  # "ground"


def create_key(
    session: Session,
    settings: Settings,
    project_id: str,
    name: str,
    scopes: Sequence[str],
    expires_ms: int | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its text, which is not kept anywhere."""
    now = now_ms(session)
    if expires_ms is not None and expires_ms <= now:
        raise Unprocessable("out_of_range", "`expires_at` must lie in the future.", "expires_at")
    key_id, secret = new_id("key"), new_secret()
    row = ApiKey(id=key_id, project_id=project_id, name=name, created_ms=now, expires_ms=expires_ms, revoked_ms=None)
    row.scopes = " ".join(scope for scope in ALL_SCOPES if scope in scopes)
    row.secret_hash = keyed_hash(secret, settings.secret_key.get_secret_value())
    session.add(row)
    session.flush()
    return row, key_text(key_id, secret)


def keys_of(project_id: str) -> Select[ApiKey]:
    """The keys of a project, revoked ones too."""
    return select(ApiKey).where(ApiKey.project_id == project_id)


def get_key(session: Session, project_id: str, key_id: str) -> ApiKey:
    """One key of the project; raises `NotFound`."""
    row = session.scalar(keys_of(project_id).where(ApiKey.id == key_id))
    if row is None:
        raise NotFound("API key", key_id)
    return row


def revoke_key(session: Session, project_id: str, key_id: str) -> ApiKey:
    """The key opens nothing from now on; again is a no-op. The last admin key stays (B81)."""
    _lock(session, project_id)
    row = get_key(session, project_id, key_id)
    if row.revoked_ms is not None:
        return row
    _keep_an_admin(session, row)
    row.revoked_ms = now_ms(session)
    after_commit(session, lambda: recent.forget(row.id))
    return row


def rotate_key(
    session: Session, settings: Settings, project_id: str, key_id: str, overlap_seconds: int
) -> tuple[ApiKey, str]:
    """A new key with the old one's name and scopes; the old one expires after the overlap (R23)."""
    _lock(session, project_id)
    old, now = get_key(session, project_id, key_id), now_ms(session)
    if old.revoked_ms is not None or (old.expires_ms is not None and old.expires_ms <= now):
        raise Conflict("invalid_state", "The key is revoked or expired; make a new one.")
    made = create_key(session, settings, project_id, old.name, old.scopes.split(), old.expires_ms)
    end = now + overlap_seconds * 1000
    old.expires_ms = end if old.expires_ms is None else min(end, old.expires_ms)
    after_commit(session, lambda: recent.forget(old.id))
    return made


def create_project(session: Session, settings: Settings, asking: Principal, name: str) -> tuple[Project, ApiKey, str]:
    """A new project with its first admin key; only the root project's admins may."""
    if not asking.root:
        raise Forbidden("insufficient_scope", "Only an admin key of the first project makes projects.")
    return _project(session, settings, name, root=False)


def projects_for(asking: Principal) -> Select[Project]:
    """The root project's admins see every project, everybody else their own."""
    query = select(Project)
    everything = asking.root and "admin" in asking.scopes
    return query if everything else query.where(Project.id == asking.project_id)


def get_project(session: Session, asking: Principal, project_id: str) -> Project:
    """One project that this key may see; raises `NotFound`."""
    row = session.scalar(projects_for(asking).where(Project.id == project_id))
    if row is None:
        raise NotFound("project", project_id)
    return row


def bootstrap(settings: Settings) -> str | None:
    """On an empty database: the first project and its admin key, returned once. Otherwise None."""
    engine = make_engine(settings.database)
    try:
        with make_sessions(engine).begin() as session:
            if engine.dialect.name == "postgresql":
                session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _BOOTSTRAP_LOCK})
            if session.scalar(select(Project.id).limit(1)) is not None:
                return None
            return _project(session, settings, "default", root=True)[2]
    finally:
        engine.dispose()


def _project(session: Session, settings: Settings, name: str, root: bool) -> tuple[Project, ApiKey, str]:
    row = Project(id=new_id("proj"), name=name, root=root, created_ms=now_ms(session))
    session.add(row)
    session.flush()
    return row, *create_key(session, settings, row.id, "first key", ALL_SCOPES)


def _lock(session: Session, project_id: str) -> None:
    """Two admins revoking each other's key wait for one another."""
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update())


def _keep_an_admin(session: Session, row: ApiKey) -> None:
    alive = or_(ApiKey.expires_ms.is_(None), ApiKey.expires_ms > now_ms(session))
    others = keys_of(row.project_id).where(
        ApiKey.id != row.id, ApiKey.revoked_ms.is_(None), alive, ApiKey.scopes.contains("admin")
    )
    if "admin" in row.scopes and not session.scalar(select(func.count()).select_from(others.subquery())):
        raise Conflict("last_admin_key", "This is the project's last admin key; make another before revoking it.")
