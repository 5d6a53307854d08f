"""Proteins: what a chain may be written with, the files it comes in, and equality with ESM-2."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.data import residues
from ssl_core.encoders import build_encoder
from ssl_core.errors import DataError
from ssl_core.heads import masked_language_loss
from ssl_core.masks import mask_tokens
from ssl_core.modalities.protein import ProteinModality
from ssl_core.objectives.mlm import MaskedLanguageModelling
from ssl_core.spec import DatasetFacts
from tests.ssl_core import datasets
from tests.ssl_core.test_parity_trunks import FAMILIES, QUIET, SHAPE, close, randomised, tensors_of, transformers
from tests.ssl_core.uploads import take

# vocab.txt of the published ESM-2 models.
ESM2 = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
KINASE = "MENFQKVEKIGEGTYGVVYKARNKLTGEVVALKKIRLDTETEGVPSTAIREISLLKELNHPNIVKLLDVIHTENKLYLVFEFLHQDLKKFMDASALTGIPL"


def zipped(files: dict[str, bytes]) -> bytes:
    """Stored, not deflated."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def fasta(*chains: str) -> bytes:
    return "".join(f">chain {number}\n{chain}\n" for number, chain in enumerate(chains, 1)).encode()


def test_the_ids_are_those_of_esm2() -> None:
    assert list(residues.TOKENS) == ESM2
    assert residues.encode("MKX").tolist() == [ESM2.index(letter) for letter in "MKX"]
    facts = residues.facts(8)
    names = {"pad_id": "<pad>", "cls_id": "<cls>", "sep_id": "<eos>", "unk_id": "<unk>", "mask_id": "<mask>"}
    assert {name: ESM2[facts[name]] for name in names} == names and facts["vocab_size"] == len(ESM2)


def test_the_tokenizer_file_spells_a_chain_with_these_ids_and_back() -> None:
    codec = residues.tokenizer()
    encoded = codec.encode(KINASE)
    assert encoded.ids == residues.encode(KINASE).tolist()
    assert codec.decode([residues.MASK, *encoded.ids, residues.EOS]) == KINASE


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("mkVl", "MKVL"),
        ("MK VL\n", "MKVL"),
        ("MKVL*", "MKVL"),
        ("--MK.VL-", "MKVL"),
        ("MKUOBZX", "MKUOBZX"),
        ("MJK", "MXK"),
        ("ACGT" * 5, "ACGT" * 5),
    ],
)
def test_a_chain_is_kept_as_documented(written: str, kept: str) -> None:
    assert residues.clean(written) == kept.encode()


@pytest.mark.parametrize(
    ("written", "code", "told"),
    [
        ("", "empty_sequence", "no residue"),
        ("-*", "empty_sequence", "no residue"),
        ("MK*VL", "invalid_residue", "residue 3 is '*', a stop codon"),
        ("MK1L", "invalid_residue", "residue 3 is '1'"),
        ("MKÉL", "invalid_residue", "residue 3 is 'É'"),
        ("ACGT" * 10, "not_a_protein", "nucleic acid"),
        ("A" * 99_999 + "MK", "sequence_too_long", "at most 100,000 residues, this has 100,001"),
        (7, "wrong_type", "not a string"),
        (None, "wrong_type", "not a string"),
    ],
)
def test_what_is_no_chain_is_refused_and_named(written: object, code: str, told: str) -> None:
    with pytest.raises(DataError) as caught:
        residues.clean(written)
    assert caught.value.code == code and told in caught.value.message


@pytest.mark.parametrize("name", ["chains.fasta", "chains.FA", "chains.faa"])
def test_fasta_is_read_chain_by_chain_whatever_its_lines(tmp_path: Path, name: str) -> None:
    text = b"; a comment\n>one a name\nMKV\nLAG\n\n>two\r\nmk*\r\n>three\nM\nK"
    made = take(tmp_path, name, text)
    assert [row["protein"] for row in made.rows] == ["MKVLAG", "MK", "MK"]
    assert [row["source"] for row in made.rows] == [f"{name}:{number}" for number in (1, 2, 3)]
    assert made.summary["modality"] == "protein" and made.summary["exact_duplicates"] == 1


PACKED = {
    "chains.fasta.gz": lambda: gzip.compress(fasta("MKVL", "LAGV")),
    "chains.FA.GZ": lambda: gzip.compress(fasta("MKVL", "LAGV")),
    "chains.zip": lambda: zipped({"a/one.fasta": fasta("MKVL"), "a/two.faa": fasta("LAGV")}),
    "apple.zip": lambda: zipped({"one.fa": fasta("MKVL", "LAGV"), "__MACOSX/._one.fa": b"\x00\x05"}),
}


@pytest.mark.parametrize("name", PACKED)
def test_fasta_is_read_from_gzip_and_zip_as_it_is_bare(tmp_path: Path, name: str) -> None:
    made = take(tmp_path, name, PACKED[name]())
    assert [row["protein"] for row in made.rows] == ["MKVL", "LAGV"]
    assert made.summary["modality"] == "protein"


def test_a_bad_chain_of_a_zip_is_named_by_its_file_and_its_row_there(tmp_path: Path) -> None:
    made = take(tmp_path, "a.zip", zipped({"one.fa": fasta("MKV", "LAG"), "two.fa": fasta("MKV", "M7")}))
    assert made.errors == [("two.fa", 2, "invalid_residue")]


def test_a_zip_of_fasta_and_other_files_is_no_upload_of_proteins(tmp_path: Path) -> None:
    mixed = zipped({"one.fa": fasta("MKV"), "two.txt": b"a text"})
    with pytest.raises(DataError) as caught:
        take(tmp_path, "a.zip", mixed, modality="protein")
    assert caught.value.code == "unsupported_type"


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.fasta.gz", lambda: gzip.compress(fasta(*[KINASE] * 200))[:-40], "archive_invalid"),
        ("a.fasta.gz", lambda: gzip.compress(b">one\n" + b"\n" * 80 * 2**20), "archive_bomb"),
        ("a.zip", lambda: zipped({"../one.fa": fasta("MKV")}), "unsafe_archive"),
        ("a.zip", lambda: zipped({"one.fa": fasta(KINASE)}).replace(b"MENFQ", b"MENFA"), "archive_invalid"),
        ("a.txt.gz", lambda: gzip.compress(b"one text\n"), "unsupported_type"),
    ],
    ids=["cut", "bomb", "climbs out", "flipped bytes", "no FASTA"],
)
def test_a_broken_or_unsafe_package_is_refused(tmp_path: Path, name: str, data: Callable[[], bytes], code: str) -> None:
    with pytest.raises(DataError) as caught:
        take(tmp_path, name, data())
    assert caught.value.code == code


def test_a_bad_chain_is_named_by_row_and_letter_and_the_others_are_kept(tmp_path: Path) -> None:
    made = take(tmp_path, "a.fasta", fasta("MKV", "MK7V", "", "LAG", "MMM"))
    assert made.errors == [("a.fasta", 2, "invalid_residue"), ("a.fasta", 3, "empty_sequence")]
    assert "residue 3 is '7'" in (made.folder / "errors.jsonl").read_text()
    assert len(made.rows) == 3


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"MKV\nLAG\n", "invalid_fasta"),
        (fasta("ACGT" * 20, "GGCC" * 20), "not_a_protein"),
        (fasta("M" * 2**20 + "K" * 2**20), "sequence_too_long"),
        (b">a\nMK\xff\n", "encoding_error"),
        (b">only a name\n", "empty_sequence"),
    ],
)
def test_a_file_of_no_chains_is_refused(tmp_path: Path, data: bytes, code: str) -> None:
    with pytest.raises(DataError) as caught:
        take(tmp_path, "a.fasta", data)
    assert (caught.value.code, caught.value.param) == (code, "a.fasta:1")


def test_a_fasta_line_of_megabytes_is_read_past_and_its_chain_refused(tmp_path: Path) -> None:
    made = take(tmp_path, "a.fasta", fasta("MKV", "M" * 3_000_000, "LAG"))
    assert made.errors == [("a.fasta", 2, "sequence_too_long")]
    assert [row["protein"] for row in made.rows] == ["MKV", "LAG"]


def test_tables_are_told_by_their_sequence_column_and_may_have_labels(tmp_path: Path) -> None:
    made = take(tmp_path, "a.csv", b"id,sequence,label\nx,MKVL,helix\ny,LAGM,strand\n")
    assert (made.summary["modality"], made.summary["classes"]) == ("protein", ["helix", "strand"])
    assert [row["protein"] for row in made.rows] == ["MKVL", "LAGM"]


def test_labels_of_single_residues_become_tags_and_what_is_left_aside_is_told(tmp_path: Path) -> None:
    line = json.dumps({"id": "1abc", "sequence": "MKVL", "labels": "CHHE", "mask": "1110"})
    made = take(tmp_path, "a.jsonl", f"{line}\n".encode())
    assert [(row["protein"], row["label"]) for row in made.rows] == [("MKVL", None)]
    told = [event for event in made.events if event["type"] == "message"]
    assert [(event["level"], event["code"]) for event in told] == [("info", "columns_ignored")]
    assert told[0]["message"].endswith("nothing was taken from: id")
    assert made.rows[0]["tags"] == ["C", "H", "H", None]


def test_profile_and_preview_are_of_residues(tmp_path: Path) -> None:
    made = take(tmp_path, "a.fasta", fasta(KINASE, KINASE[:40], "MKVL"))
    assert made.summary["lengths"] == {"min": 4, "median": 40, "p95": 101, "max": 101}
    assert (made.summary["characters"], made.summary["numbers"]) == (145, {"usual_length": 101})
    assert made.read("preview.json")[2] == {"protein": "MKVL", "label": None, "source": "a.fasta:3"}


def test_chains_that_differ_in_a_few_residues_are_near_duplicates(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    letters = list("ACDEFGHIKLMNPQRSTVWY")
    chains = ["".join(random.choice(letters, 300)) for _ in range(50)]
    changed = [chain[:100] + "W" + chain[101:200] + "W" + chain[201:] for chain in chains[:20]]
    made = take(tmp_path, "a.fasta", fasta(*chains, *changed))
    assert made.summary["near_duplicates"] >= 19 and made.summary["exact_duplicates"] == 0


def test_unrelated_chains_are_no_near_duplicates(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    chains = ["".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY"), 300)) for _ in range(60)]
    assert take(tmp_path, "a.fasta", fasta(*chains)).summary["near_duplicates"] == 0


@pytest.mark.parametrize(("usual", "rows"), [(30, 64), (439, 448), (35_000, 1024)])
def test_the_recipe_s_rows_hold_the_usual_chain(usual: int, rows: int) -> None:
    facts = DatasetFacts(id="ds_1", modality="protein", rows=9, characters=900, numbers={"usual_length": usual})
    assert ProteinModality.suited(facts).max_length == rows


def test_a_served_chain_is_cleaned_as_an_uploaded_one_and_a_bad_one_named(tmp_path: Path) -> None:
    raw = datasets.PROTEIN.collate(["mk-vl*", "LAG"], tmp_path)
    assert raw["ids"].tolist() == [residues.encode("MKVL").tolist(), [*residues.encode("LAG").tolist(), residues.PAD]]
    with pytest.raises(DataError) as caught:
        datasets.PROTEIN.collate(["MK", "M8"], tmp_path)
    assert (caught.value.code, caught.value.param) == ("invalid_residue", "items.1")


def masked_chains() -> tuple[Tokens, torch.Tensor]:
    """Three chains, two of them padded, and which slots are real."""
    ids = torch.full((3, 24), residues.PAD)
    lengths = torch.tensor([24, 17, 9])
    for row, length in enumerate(lengths.tolist()):
        ids[row, :length] = torch.from_numpy(residues.encode(KINASE[10 * row : 10 * row + length]).astype(np.int64))
    slots = torch.arange(24)
    real = slots < lengths[:, None]
    return Tokens(ids, torch.where(real, 0, -1).int(), slots * real), real


def test_the_masked_residue_loss_equals_esm2_s_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    config = transformers.EsmConfig(
        vocab_size=33, mask_token_id=residues.MASK, pad_token_id=residues.PAD, position_embedding_type="rotary",
        token_dropout=True, emb_layer_norm_before=False, **SHAPE, **QUIET,
    )  # fmt: skip
    theirs = randomised(transformers.EsmForMaskedLM(config))
    shape = {"name": "custom", "family": "transformer", "width": 32, "depth": 4, "heads": 4, "mlp_ratio": 1.5}
    spec = EncoderSpec.model_validate({**shape, **FAMILIES["esm2"].spec})
    ours = build_encoder(spec, residues.facts(24))
    public = {name.removeprefix("esm."): parameter for name, parameter in theirs.named_parameters()}
    ours.load_state_dict(tensors_of(FAMILIES["esm2"], public, ours))
    nets = MaskedLanguageModelling().build(ours)
    head = {"dense": "dense", "norm": "layer_norm"}
    places = {f"{mine}.{kind}": f"lm_head.{name}.{kind}" for mine, name in head.items() for kind in ("weight", "bias")}
    nets.parts["vocabulary"].load_state_dict({k: public[v] for k, v in {**places, "bias": "lm_head.bias"}.items()})
    tokens, real = masked_chains()
    masked = mask_tokens(tokens, torch.tensor([3, 4, 5]), ours.facts, 0.3, whole_word=False)
    loss, _ = masked_language_loss(nets, ours.encode(masked.tokens), masked)
    counted = masked.weights > 0
    labels = torch.full_like(tokens.ids, -100)
    for row in range(3):
        labels[row, masked.places[row][counted[row]]] = masked.targets[row][counted[row]]
    expected = theirs(input_ids=masked.tokens.ids, attention_mask=real.long(), labels=labels).loss
    torch.autograd.backward([loss, expected])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    gradients = tensors_of(FAMILIES["esm2"], {name: p.grad for name, p in public.items() if p.grad is not None}, ours)
    for place, parameter in ours.named_parameters():
        assert parameter.grad is not None and close(parameter.grad, gradients[place], 1e-4), place
