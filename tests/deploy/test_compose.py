"""docker-compose.yml: valid by the Compose specification, and nothing in it that no role reads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from app.main import GRACE_SECONDS
from app.settings import Settings
from tests.deploy.declared import COMPOSE, Role, image, of_compose, of_manifests
from worker.inference_settings import InferenceSettings
from worker.settings import WorkerSettings

READS = {"api": Settings, "migrate": Settings, "worker": WorkerSettings, "inference": InferenceSettings}
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
# `groundwork doctor`, run in the API's container, looks there.
ALSO = {"api": {"GROUNDWORK_API_URL"}, "migrate": {"GROUNDWORK_API_URL"}}
ROLES = [*(("compose", role) for role in of_compose()), *(("kubernetes", role) for role in of_manifests())]


def check(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_it_is_valid_by_the_compose_specification() -> None:
    done = check(COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_validation_would_see_a_misspelt_field(tmp_path: Path) -> None:
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text().replace("stop_grace_period", "stop_grace_seconds"))
    done = check(wrong)
    assert done.returncode == 1 and "stop_grace_seconds" in done.stdout + done.stderr


@pytest.mark.parametrize("role", [role for _, role in ROLES], ids=[f"{where}-{role.name}" for where, role in ROLES])
def test_no_variable_is_unknown_and_every_value_is_one(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = READS[role.name]
    known = {f"GROUNDWORK_{field.upper()}" for field in settings.model_fields} | ALSO.get(role.name, set())
    # HOST is the image's own for all roles; the worker's has it not.
    ours = {name: value for name, value in role.environment.items() if name.startswith("GROUNDWORK_")}
    assert not set(ours) - known
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    assert settings().model_dump()["worker_token"].get_secret_value() == ours["GROUNDWORK_WORKER_TOKEN"]


@pytest.mark.parametrize("role", [role for _, role in ROLES], ids=[f"{where}-{role.name}" for where, role in ROLES])
def test_every_command_is_one_of_ours(role: Role) -> None:
    from groundwork.cli import app

    assert role.command[0] == "groundwork" and len(role.command) == 2
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert role.command[1] in known


def test_the_addresses_that_roles_are_given_are_services_and_their_ports() -> None:
    text = " ".join(str(role.environment) for role in of_compose())
    hosts = {host for host in re.findall(r"(?://|@)([a-z][a-z0-9.-]*):\d+", text) if host != "groundwork"}
    assert hosts <= set(SERVICES) and {"api", "inference", "postgres", "redis", "store"} <= hosts


def test_services_wait_for_what_exists_and_volumes_are_declared() -> None:
    declared = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= set(SERVICES)
        assert {volume.partition(":")[0] for volume in service.get("volumes", ())} <= set(declared)


def test_a_service_has_more_time_to_stop_than_its_role_takes() -> None:
    drains = {"worker": WorkerSettings, "inference": InferenceSettings}
    takes = {name: kind.model_fields["drain_seconds"].default for name, kind in drains.items()}
    takes |= {"api": GRACE_SECONDS, "worker": takes["worker"] + 15}
    given = {name: int(SERVICES[name]["stop_grace_period"].removesuffix("s")) for name in takes}
    assert all(given[name] >= takes[name] + 5 for name in takes), (given, takes)


def test_passwords_come_from_the_environment_and_only_the_api_has_the_key_of_the_keys() -> None:
    text = COMPOSE.read_text()
    assert not re.findall(r"^\s*\w*(?:PASSWORD|TOKEN|SECRET\w*KEY)\w*: (?!\$\{\w+:\?)", text, re.MULTILINE)
    holders = {role.name for role in of_compose() if "GROUNDWORK_SECRET_KEY" in role.environment}
    assert holders == {"api", "migrate"}


def test_images_listen_where_others_can_reach_them() -> None:
    assert image("api")[1]["GROUNDWORK_HOST"] == "0.0.0.0"
    assert image("api")[0] == ["groundwork", "api"] and image("worker")[0] == ["groundwork", "worker"]
    (inference,) = [role for role in of_compose() if role.name == "inference"]
    assert inference.environment["GROUNDWORK_INFERENCE_URL"].startswith("http://0.0.0.0:")
