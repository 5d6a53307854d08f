"""What docker-compose.yml and the manifests say: of each role its command and environment, images' own included."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
MANIFESTS = ROOT / "deploy" / "kubernetes"
PASSWORDS = {
    name: f"{name.lower()}-of-the-tests"
    for name in ("GROUNDWORK_WORKER_TOKEN", "GROUNDWORK_SECRET_KEY", "POSTGRES_PASSWORD", "STORE_PASSWORD")
}
DATABASE = f"postgresql+psycopg://groundwork:{PASSWORDS['POSTGRES_PASSWORD']}@postgres:5432/groundwork"
SECRET = {
    "database-url": DATABASE, "broker-url": "redis://redis:6379/0", "store-key-id": "groundwork",
    "worker-token": PASSWORDS["GROUNDWORK_WORKER_TOKEN"], "secret-key": PASSWORDS["GROUNDWORK_SECRET_KEY"],
    "store-key": PASSWORDS["STORE_PASSWORD"], "store-endpoint": "http://store:8333",
}  # fmt: skip


@dataclass(frozen=True)
class Role:
    """One process as it is declared."""

    name: str
    """api, migrate, worker or inference: the subcommand."""
    command: list[str]
    environment: dict[str, str]


def image(stage: str) -> tuple[list[str], dict[str, str]]:
    """CMD and ENV of a stage of the Dockerfile and of what it stands on."""
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    by_name = {re.search(r"AS (\w+)", text).group(1): text for text in stages}  # type: ignore[union-attr]
    text = by_name[stage]
    base = text.split()[0]
    command, environment = image(base) if base in by_name else ([], {})
    environment |= dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", text, re.MULTILINE))))
    found = re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)
    return json.loads(found.group(1)) if found else command, environment


def of_compose() -> list[Role]:
    """The services that are built from this repository, with every `${…}` filled in."""
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: PASSWORDS[found.group(1)], COMPOSE.read_text())
    roles = []
    for service in yaml.safe_load(text)["services"].values():
        if "build" in service:
            command, environment = image(service["build"]["target"])
            command = service.get("command", command)
            roles.append(Role(command[1], command, environment | service["environment"]))
    return roles


def documents() -> list[dict[str, Any]]:
    """Every object of the manifests."""
    files = sorted(path for path in MANIFESTS.glob("*.yaml") if path.name != "kustomization.yaml")
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]


def pods() -> dict[str, dict[str, Any]]:
    """Deployment -> the spec of its pods."""
    return {d["metadata"]["name"]: d["spec"]["template"]["spec"] for d in documents() if d["kind"] == "Deployment"}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that run before, and those that run."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


def of_manifests() -> list[Role]:
    """Every container of every pod, with its config maps and secrets looked up."""
    maps = {d["metadata"]["name"]: d["data"] for d in documents() if d["kind"] == "ConfigMap"}
    roles = []
    for container in (each for pod in pods().values() for each in containers(pod)):
        environment = image("api" if container["image"] == "groundwork-api" else "worker")[1]
        for source in container.get("envFrom", ()):
            environment |= maps[source["configMapRef"]["name"]]
        for variable in container["env"]:
            given = variable.get("valueFrom", {}).get("secretKeyRef")
            environment[variable["name"]] = SECRET[given["key"]] if given else variable["value"]
        roles.append(Role(container["command"][1], container["command"], environment))
    return roles
