"""The manifests: valid by Kubernetes' own schemas, and in step with what the roles really do."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.main import GRACE_SECONDS
from tests.deploy.declared import MANIFESTS, ROOT, SECRET, containers, documents, of_manifests, pods
from worker.inference_settings import InferenceSettings
from worker.settings import WorkerSettings

PODS = pods()
OLDEST, NEWEST = "1.30.0", kubernetes_validate.latest_version()
TOKEN = "token-for-the-settings-alone"


def named(document: dict[str, Any]) -> str:
    return f"{document['kind']}-{document['metadata']['name']}"


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {d["metadata"]["name"]: d["spec"] for d in documents() if d["kind"] == kind}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("document", documents(), ids=named)
def test_it_is_valid_by_the_schemas_of_kubernetes(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_validation_would_see_a_misspelt_field() -> None:
    wrong = next(d for d in documents() if d["kind"] == "Deployment")
    wrong["spec"]["template"]["spec"]["terminationGraceSeconds"] = 30
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGraceSeconds"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_kustomize_is_given_every_file_and_every_image() -> None:
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    assert {*kustomization["resources"], "kustomization.yaml"} == {path.name for path in MANIFESTS.iterdir()}
    used = {each["image"] for pod in PODS.values() for each in containers(pod)}
    assert {each["name"] for each in kustomization["images"]} == used


@pytest.mark.parametrize("name", PODS)
def test_nothing_runs_as_root_or_writes_outside_its_volumes(name: str) -> None:
    pod = PODS[name]
    user = int(re.search(r"useradd .*--uid (\d+)", (ROOT / "Dockerfile").read_text()).group(1))  # type: ignore[union-attr]
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == user
    assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in containers(pod):
        limits = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert each["securityContext"] == limits
        assert {"name": "scratch", "mountPath": "/tmp"} in each["volumeMounts"]
        assert each["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_more_time_to_stop_than_its_role_takes(name: str) -> None:
    def setting(field: str) -> float:
        role = next(role for role in of_manifests() if role.name == command)
        return float(role.environment[f"GROUNDWORK_{field}"])

    (container,) = PODS[name]["containers"]
    command = container["command"][1]
    # The worker ends itself 15 s after its drain (worker/main.py).
    takes = {"api": lambda: GRACE_SECONDS, "inference": lambda: setting("DRAIN_SECONDS"),
             "worker": lambda: setting("DRAIN_SECONDS") + 15}[command]()  # fmt: skip
    leaving = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert PODS[name]["terminationGracePeriodSeconds"] >= takes + leaving + 5
    assert leaving >= 5 or command == "worker", "requests go on to arrive for a moment after the signal"


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_probed_scaled_and_kept_by_a_budget(name: str) -> None:
    (container,) = PODS[name]["containers"]
    assert {"startupProbe", "livenessProbe"} <= set(container)
    assert of_kind("HorizontalPodAutoscaler")[name]["scaleTargetRef"]["name"] == name
    assert of_kind("PodDisruptionBudget")[name]["selector"]["matchLabels"] == {"app": name}


def test_probes_ask_paths_that_the_roles_have() -> None:
    (api,), (inference,) = PODS["api"]["containers"], PODS["inference"]["containers"]
    kinds = [f"{kind}Probe" for kind in ("startup", "liveness", "readiness")]
    paths = [api[kind]["httpGet"]["path"] for kind in kinds]
    assert paths == ["/healthz", "/healthz", "/readyz"], "a database that is away must not restart the API"
    assert {inference[kind]["httpGet"]["path"] for kind in kinds} == {"/healthz"}
    for name in ("worker-cpu", "worker-gpu"):
        (worker,) = PODS[name]["containers"]
        assert worker["livenessProbe"]["exec"]["command"] == ["python", "-m", "worker.main", "--check"]


@pytest.mark.parametrize("queue", ["cpu", "gpu"])
def test_workers_are_scaled_by_the_jobs_of_their_own_queue(queue: str) -> None:
    (metric,) = of_kind("HorizontalPodAutoscaler")[f"worker-{queue}"]["metrics"]
    (container,) = PODS[f"worker-{queue}"]["containers"]
    assert {"name": "GROUNDWORK_QUEUE", "value": queue} in container["env"]
    asked = metric["external"]["metric"]
    assert asked == {"name": "groundwork_queue_jobs", "selector": {"matchLabels": {"queue": queue}}}
    assert f'"{asked["name"]}"' in (ROOT / "app/jobs/measures.py").read_text()
    assert int(metric["external"]["target"]["averageValue"]) == WorkerSettings(worker_token=TOKEN).slots


def test_caches_fit_the_volumes_they_are_in() -> None:
    units = {"Gi": 2**30}

    def volume(name: str) -> int:
        (found,) = [each for each in PODS[name]["volumes"] if each["name"] == "data"]
        size = found["emptyDir"]["sizeLimit"]
        return int(size[:-2]) * units[size[-2:]]

    roles = {role.name: role.environment for role in of_manifests()}
    kept = WorkerSettings(worker_token=TOKEN, cache_bytes=int(roles["worker"]["GROUNDWORK_CACHE_BYTES"])).cache_bytes
    assert 2 * kept <= volume("worker-cpu") == volume("worker-gpu")
    disk = int(roles["inference"]["GROUNDWORK_MODEL_DISK_BYTES"])
    assert InferenceSettings(worker_token=TOKEN, model_disk_bytes=disk).model_disk_bytes <= 0.8 * volume("inference")


def test_workers_and_inference_reach_neither_the_database_nor_the_store() -> None:
    policies = of_kind("NetworkPolicy")
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    open_ports = {
        name: {port["port"] for rule in policies[name]["egress"] if "to" not in rule for port in rule["ports"]}
        for name in ("api", "worker", "inference")
    }
    assert open_ports == {"api": {5432, 6379, 443}, "worker": {6379}, "inference": set()}
    for role in of_manifests():
        knows = {name for name in role.environment if name in ("GROUNDWORK_DATABASE_URL", "GROUNDWORK_SECRET_KEY")}
        assert bool(knows) == (role.name in ("api", "migrate")), role.name
        assert not [name for name in role.environment if name.startswith("AWS_")] or role.name in ("api", "migrate")


def test_no_secret_is_written_down_and_the_docs_name_each() -> None:
    text = "".join(path.read_text() for path in MANIFESTS.iterdir())
    used = set(re.findall(r"secretKeyRef: \{name: groundwork, key: ([\w-]+)", text))
    assert used == set(SECRET) and not [d for d in documents() if d["kind"] == "Secret"]
    told = (ROOT / "docs" / "operations.md").read_text()
    assert not [name for name in used if f"--from-literal={name}=" not in told]
