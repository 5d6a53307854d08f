"""`/v1/objectives`, `/v1/backbones`, `/v1/tasks`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ssl_core.backbones import BACKBONES, FAMILIES, EncoderSpec
from ssl_core.objectives import OBJECTIVES
from ssl_core.tasks import TASKS
from tests.app.conftest import Api

KINDS = {"objectives": OBJECTIVES, "tasks": TASKS}
LISTS = ["objectives", "backbones", "tasks"]


def listed(api: Api, kind: str, **query: str) -> dict[str, dict[str, Any]]:
    reply = api.client.get(f"/v1/{kind}", params=query)
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert body["object"] == "list" and body["has_more"] is False
    assert (body["first_id"], body["last_id"]) == (body["data"][0]["id"], body["data"][-1]["id"])
    return {entry["id"]: entry for entry in body["data"]}


@pytest.mark.parametrize("kind", ["objectives", "tasks"])
def test_every_entry_of_the_engine_is_listed_with_what_a_form_needs(api: Api, kind: str) -> None:
    entries = listed(api, kind)
    assert set(entries) == set(KINDS[kind])
    for name, entry in entries.items():
        known = KINDS[kind][name]
        assert entry["object"] == kind.removesuffix("s") and entry["description"]
        assert entry["modalities"] == list(known.modalities) and entry["views"] == list(known.views)
        assert entry["parameters"]["type"] == "object"
        assert set(entry["parameters"]["properties"]) == set(known.model_fields)
        assert entry["parameters"]["properties"]["name"]["const"] == name


def test_every_objective_names_its_paper(api: Api) -> None:
    assert all("http" in entry["paper"] for entry in listed(api, "objectives").values())


@pytest.mark.parametrize("kind", ["objectives", "tasks"])
def test_the_defaults_are_a_spec_that_the_engine_takes(api: Api, kind: str) -> None:
    for name, entry in listed(api, kind).items():
        known = KINDS[kind][name]
        assert TypeAdapter(known).validate_python(entry["defaults"]) == known()


def test_every_backbone_is_listed_with_its_shape(api: Api) -> None:
    entries = listed(api, "backbones")
    assert set(entries) == set(BACKBONES)
    for name, entry in entries.items():
        assert EncoderSpec.model_validate(entry["defaults"]) == BACKBONES[name]
        assert entry["has_tokens"] is FAMILIES[entry["family"]][1]
        assert entry["modalities"] == list(FAMILIES[entry["family"]][0])


def test_a_list_can_be_narrowed_to_a_modality(api: Api) -> None:
    text, image = listed(api, "objectives", modality="text"), listed(api, "objectives", modality="image")
    assert "mlm" in text and "mlm" not in image and "simclr" in image and "simclr" not in text
    fitting = listed(api, "backbones", modality="text")
    assert "text-small" in fitting and all("text" in entry["modalities"] for entry in fitting.values())
    assert "image-convnet" not in fitting and "pair-tiny" not in fitting


@pytest.mark.parametrize("kind", LISTS)
def test_an_unknown_modality_says_which_are_known(api: Api, kind: str) -> None:
    reply = api.client.get(f"/v1/{kind}", params={"modality": "smell"})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (422, "modality")
    assert "image" in error["message"] and "text" in error["message"]


@pytest.mark.parametrize("kind", LISTS)
def test_an_unchanged_list_is_not_sent_again(api: Api, kind: str) -> None:
    first = api.client.get(f"/v1/{kind}")
    again = api.client.get(f"/v1/{kind}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert api.client.get(f"/v1/{kind}", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("kind", LISTS)
def test_the_catalogue_needs_a_key(api: Api, kind: str) -> None:
    assert api.anonymous.get(f"/v1/{kind}").status_code == 401


def test_a_new_objective_appears_by_adding_its_file(tmp_path: Path) -> None:
    """A scratch file on the package's path is all it takes."""
    (tmp_path / "toy.py").write_text(
        "from typing import ClassVar, Literal\n"
        "from pydantic import Field\n"
        "from ssl_core.objectives.base import Objective\n"
        "class Toy(Objective):\n"
        "    '''A toy.'''\n"
        "    name: Literal['toy'] = 'toy'\n"
        "    strength: float = Field(default=0.5, ge=0, le=1)\n"
        "    modalities: ClassVar[tuple[str, ...]] = ('text',)\n"
        "    views: ClassVar[tuple[str, ...]] = ('packed',)\n"
        "    paper: ClassVar[str] = 'https://example.org'\n"
    )
    code = (
        "import json, pkgutil, importlib.machinery, sys\n"
        "import ssl_core\n"
        "spec = importlib.machinery.PathFinder.find_spec('ssl_core.objectives', ssl_core.__path__)\n"
        f"spec.submodule_search_locations.append({str(tmp_path)!r})\n"
        "module = importlib.util.module_from_spec(spec); sys.modules['ssl_core.objectives'] = module\n"
        "spec.loader.exec_module(module)\n"
        "from app.catalogue.service import objectives\n"
        "toy = {entry['id']: entry for entry in json.loads(objectives(None).body)['data']}['toy']\n"
        "assert toy['defaults'] == {'name': 'toy', 'strength': 0.5} and toy['description'] == 'A toy.'\n"
        "assert toy['parameters']['properties']['strength']['maximum'] == 1\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
