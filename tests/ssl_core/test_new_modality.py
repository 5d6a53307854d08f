"""A modality is one file: a scratch file on the package's path is ingested, prepared, validated and listed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DNA = '''
"""Sequences of A, C, G and T."""

from typing import ClassVar, Literal

import numpy as np

from ssl_core.data.intake import Reading, Row
from ssl_core.errors import DataError
from ssl_core.modalities.base import Column, Examined, Modality


class Dna(Modality):
    """Sequences."""

    name: Literal["dna"] = "dna"
    length: int = 8
    formats: ClassVar = (".csv", ".jsonl", ".fasta")
    columns: ClassVar = {"dna": Column(usual=("dna", "sequence"))}
    measures: ClassVar = ("gc",)
    families: ClassVar = ("transformer",)
    views: ClassVar = {"plain": "document", "packed": "row"}

    @classmethod
    def from_row(cls, values):
        if not set(values["dna"]) <= set("ACGT"):
            raise DataError("wrong_letters", "a sequence is of A, C, G and T")
        return {"dna": values["dna"].encode()}

    @classmethod
    def read(cls, upload, kind):
        records = upload.path.read_text().split(">")[1:]
        reading = Reading(cls, iter(()), total=len(records))
        reading.rows = (
            Row(cls.from_row({"dna": "".join(record.split()[1:])}), record.split()[0], f"{upload.name}:{number}")
            for number, record in enumerate(records, 1)
        )
        return reading

    @classmethod
    def examine(cls, content):
        letters = content["dna"].decode()
        measured = {"dna": letters, "gc": letters.count("G") + letters.count("C")}
        return Examined(measured, len(letters), lambda: letters, lambda: {"dna": letters[:4]})

    @classmethod
    def facts(cls, lengths, measures):
        return {"characters": sum(lengths), "numbers": {"gc": sum(measures["gc"])}}

    @classmethod
    def suited(cls, dataset):
        return cls(length=dataset.characters // dataset.rows)

    def prepare(self, dataset, out, tokenizer, progress):
        from ssl_core.data import rows

        out.mkdir()
        codes = [[b"ACGT".index(x) for x in t.encode()] for b in rows.batches(dataset, ["dna"]) for t in b["dna"]]
        np.save(out / "codes.npy", np.array([code[: self.length] for code in codes], dtype=np.uint8))

    def open(self, prepared):
        return np.load(prepared / "codes.npy", mmap_mode="r")

    def slots(self, view):
        return self.length

    def default_backbone(self, size):
        from ssl_core.backbones import BACKBONES

        return BACKBONES[f"text-{size}"]
'''
ON_THE_PATH = """
import importlib.machinery, importlib.util, json, sys
from pathlib import Path
import ssl_core
folder = Path(sys.argv[1])
spec = importlib.machinery.PathFinder.find_spec("ssl_core.modalities", ssl_core.__path__)
spec.submodule_search_locations.append(sys.argv[1])
module = importlib.util.module_from_spec(spec); sys.modules["ssl_core.modalities"] = module
spec.loader.exec_module(module)
"""
INGEST = """
from tests.ssl_core.uploads import take
"""


def with_dna(tmp_path: Path, code: str) -> None:
    """Run code in a process that finds the scratch file."""
    (tmp_path / "dna.py").write_text(DNA)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", ON_THE_PATH + code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr


def test_its_tables_are_told_by_their_columns_ingested_and_prepared(tmp_path: Path) -> None:
    with_dna(
        tmp_path,
        INGEST + "made = take(folder, 'a.csv', b'sequence,label\\nACGTACGT,x\\nAAAACCCC,y\\nhello,x\\nGGGGGGGG,\\n')\n"
        "assert [row['dna'] for row in made.rows] == ['ACGTACGT', 'AAAACCCC', 'GGGGGGGG'], made.rows\n"
        "assert [row['gc'] for row in made.rows] == [4, 4, 8]\n"
        "assert made.errors == [('a.csv', 3, 'wrong_letters')]\n"
        "assert (made.summary['modality'], made.summary['numbers']) == ('dna', {'gc': 16})\n"
        "assert made.summary['class_counts'] == {'x': 1, 'y': 1} and made.read('preview.json')[0]['dna'] == 'ACGT'\n"
        "from ssl_core.modalities import MODALITIES\n"
        "MODALITIES['dna']().prepare(made.folder, folder / 'shards', None, lambda done, total: None)\n"
        "codes = MODALITIES['dna']().open(folder / 'shards')\n"
        "assert codes.shape == (3, 8) and list(codes[0]) == [0, 1, 2, 3] * 2\n",
    )


def test_a_file_of_its_own_ending_is_read_by_itself(tmp_path: Path) -> None:
    with_dna(
        tmp_path,
        INGEST + "made = take(folder, 'a.fasta', b'>one\\nACGT\\nAC\\n>two\\nTTTT\\n')\n"
        "assert [(row['dna'], row['label']) for row in made.rows] == [('ACGTAC', 'one'), ('TTTT', 'two')]\n",
    )


def test_a_table_that_says_nothing_stays_text(tmp_path: Path) -> None:
    with_dna(
        tmp_path,
        INGEST + "assert take(folder, 'a.csv', b'text,label\\nhello,x\\n').summary['modality'] == 'text'\n"
        "assert take(folder, 'a.jsonl', b'{\"sequence\": \"ACGT\"}\\n').summary['modality'] == 'dna'\n"
        "assert take(folder, 'a.txt', b'ACGT\\nACGT\\n').summary['modality'] == 'text'\n",
    )


def test_validation_the_recipe_the_catalogue_and_the_upload_form_know_it(tmp_path: Path) -> None:
    with_dna(
        tmp_path,
        "from ssl_core.recipes import resolve\n"
        "from ssl_core.spec import DatasetFacts, JOB_SPEC\n"
        "sent = {'type': 'pretrain', 'dataset': 'ds_1', 'objective': {'name': 'mlm'}}\n"
        "facts = DatasetFacts(id='ds_1', modality='dna', rows=1000, characters=64_000)\n"
        "resolved = resolve(JOB_SPEC.validate_python(sent), facts)\n"
        "assert (resolved.modality.name, resolved.modality.length) == ('dna', 64)\n"
        "assert JOB_SPEC.validate_json(resolved.model_dump_json()) == resolved\n"
        "from app.catalogue.service import backbones, objectives, tasks\n"
        "listed = {e['id'] for make in (objectives, backbones, tasks) for e in json.loads(make('dna').body)['data']}\n"
        "assert {'mlm', 'text-small', 'classification'} <= listed and 'simclr' not in listed\n"
        "from app.datasets.schemas import read_form\n"
        "assert read_form({'modality': 'dna', 'columns': '{\"dna\": \"mine\"}'}).modality == 'dna'\n"
        "from app.inference.items import read_input\n"
        "assert read_input({'dna': 'ACGT'}) == [{'dna': 'ACGT'}]\n"
        "assert 'torch' not in sys.modules\n",
    )
