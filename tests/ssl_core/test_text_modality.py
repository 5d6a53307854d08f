"""Text: tokenizers, packing, spans, word starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ssl_core.batch import Tokens
from ssl_core.data import token_shards, tokenizer
from ssl_core.data.token_shards import TokenSource
from ssl_core.errors import DataError, SpecError
from ssl_core.modalities.text import TextModality
from ssl_core.spec import DatasetFacts
from tests.ssl_core.datasets import text_dataset
from tests.ssl_core.uploads import take

POOL = ["The quick brown fox jumps over the lazy dog, again and again.", "Größe zählt: naïve café 日本語!"] * 20
KINDS: list[tokenizer.TokenizerKind] = ["bpe", "wordpiece"]
ALL: list[tokenizer.TokenizerKind] = [*KINDS, "bytes", "characters"]


def source_of(tmp_path: Path, texts: list[str], **settings: object) -> tuple[TextModality, TokenSource]:
    dataset = take(tmp_path, "a.jsonl", "\n".join(f'{{"text": "{text}"}}' for text in texts).encode()).folder
    modality = TextModality(**{"max_length": 16, "vocab_size": 600, "span_min": 3, "span_max": 8, **settings})
    modality.prepare(dataset, tmp_path / "shards", None, lambda done, total: None)
    source = modality.open(tmp_path / "shards")
    assert isinstance(source, TokenSource)
    return modality, source


def documents(source: TokenSource, indices: list[int], seeds: list[int] | None = None) -> dict[str, Tensor]:
    read = source.read("document", np.array(indices), None if seeds is None else np.array(seeds))
    return {name: torch.from_numpy(values) for name, values in read.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_special_entries_have_their_ids_and_the_vocabulary_its_bound(kind: tokenizer.TokenizerKind) -> None:
    trained = tokenizer.train(POOL, kind, 520, lowercase=False)
    assert [trained.id_to_token(index) for index in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert trained.get_vocab_size() <= 520


def test_byte_level_bpe_gives_back_any_text() -> None:
    trained = tokenizer.train(POOL, "bpe", 520, lowercase=False)
    text = "never seen: 🦊 Ωmega\tand 日本"
    assert trained.decode(tokenizer.encode(trained, [text])[0]).strip() == text


def test_bytes_give_back_any_text_to_the_byte() -> None:
    trained = tokenizer.train(["one pool"], "bytes", 512, lowercase=False)
    assert trained.get_vocab_size() == tokenizer.BYTE_ENTRIES == 261
    text = "  never seen:\r\n\t🦊 e\u0301 \x00 Ωmega čĊĠ "
    ids = tokenizer.encode(trained, [text])[0]
    assert ids == [5 + byte for byte in text.encode()]
    assert trained.decode(ids) == text


def test_characters_are_those_of_the_pool_in_the_order_of_their_code_points() -> None:
    trained = tokenizer.train(["banana\n", "cab é"], "characters", 512, lowercase=False)
    assert [trained.id_to_token(index) for index in range(5, tokenizer.size(trained))] == list("\n abcné")
    assert tokenizer.encode(trained, ["cab\n\nq"]) == [[9, 7, 8, 5, 5, tokenizer.UNK]]
    assert trained.decode(tokenizer.encode(trained, ["ban  can\n\n"])[0]) == "ban  can\n\n"


def test_a_pool_of_more_characters_than_entries_keeps_the_most_frequent() -> None:
    rare = "".join(chr(0x4E00 + number) for number in range(600))
    trained = tokenizer.train([rare, "a common text"], "characters", 512, lowercase=False)
    assert trained.get_vocab_size() == 512
    assert tokenizer.UNK not in tokenizer.encode(trained, ["a common text"])[0]
    assert tokenizer.encode(trained, [chr(0x4E00 + 599)]) == [[tokenizer.UNK]]


def test_a_pool_of_characters_is_counted_a_character_a_token() -> None:
    pool = DatasetFacts(id="ds_pool", modality="text", rows=10, characters=64_000)
    rows = {kind: TextModality(tokenizer=kind, max_length=64).samples(pool, "row") for kind in ALL}
    assert rows == {"bpe": 250, "wordpiece": 250, "bytes": 1000, "characters": 1000}
    means = [TextModality(tokenizer=kind).mean_length(pool) for kind in ALL]
    assert means == [1600, 1600, 6400, 6400]


@pytest.mark.parametrize("kind", ALL)
def test_lowercase_folds_case(kind: tokenizer.TokenizerKind) -> None:
    folding, keeping = (tokenizer.train(POOL, kind, 520, lowercase=fold) for fold in (True, False))
    assert tokenizer.encode(folding, ["QUICK Fox"]) == tokenizer.encode(folding, ["quick fox"])
    assert tokenizer.encode(keeping, ["QUICK Fox"]) != tokenizer.encode(keeping, ["quick fox"])


@pytest.mark.parametrize("kind", KINDS)
def test_word_starts_mark_the_words_and_the_punctuation(kind: tokenizer.TokenizerKind) -> None:
    trained = tokenizer.train(POOL, kind, 512, lowercase=False)
    starts = tokenizer.word_starts(trained)
    ids = tokenizer.encode(trained, ["jumping foxes, naïve"])[0]
    words = [""]
    for index, token in zip(ids, (trained.id_to_token(index) for index in ids), strict=True):
        words = [*words, token] if starts[index] else [*words[:-1], words[-1] + token]
    assert len(words) == 5  # nothing, jumping, foxes, the comma, naïve
    assert len(ids) > 4


@pytest.mark.parametrize("kind", ["bpe", "bytes", "characters"])
def test_a_line_begins_a_word(kind: tokenizer.TokenizerKind) -> None:
    trained = tokenizer.train(["\n\t\r,odd ends", *POOL], kind, 512, lowercase=False)
    starts = tokenizer.word_starts(trained)
    ids = tokenizer.encode(trained, ["ends\nodd\tends, odd"])[0]
    words = [""]
    for index in ids:
        words = [*words, ""] if starts[index] else words
        words[-1] += trained.decode([index])
    assert [word.strip() for word in words if word.strip()] == ["ends", "odd", "ends", ",", "odd"]


def test_a_text_of_no_token_is_one_unknown() -> None:
    trained = tokenizer.train(POOL, "wordpiece", 512, lowercase=False)
    assert tokenizer.encode(trained, [" \t"]) == [[tokenizer.UNK]]


@pytest.mark.parametrize("kind", ALL)
def test_no_text_is_an_empty_dataset(kind: tokenizer.TokenizerKind) -> None:
    with pytest.raises(DataError) as caught:
        tokenizer.train([], kind, 512, lowercase=False)
    assert caught.value.code == "empty_dataset"


def test_a_foreign_tokenizer_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).save(str(tmp_path / "without.json"))
    for name in ("broken.json", "without.json"):
        with pytest.raises(SpecError) as caught:
            tokenizer.load(tmp_path / name)
        assert caught.value.code == "invalid_tokenizer"


def test_a_given_tokenizer_is_reused_to_the_byte(tmp_path: Path) -> None:
    dataset = text_dataset(tmp_path / "d")
    tokenizer.train(POOL, "bpe", 520, lowercase=False).save(str(tmp_path / "given.json"))
    TextModality().prepare(dataset, tmp_path / "s", tmp_path / "given.json", lambda done, total: None)
    assert (tmp_path / "s" / "tokenizer.json").read_bytes() == (tmp_path / "given.json").read_bytes()


def test_packed_rows_hold_every_token_once_in_order(tmp_path: Path) -> None:
    _, source = source_of(tmp_path, [f"word{n} and some more of it" for n in range(30)])
    count = source.count("row")
    read = source.read("row", np.arange(count))
    real = read["segments"] >= 0
    flat = source.read("document", np.arange(30))
    expected = np.concatenate([ids[:length] for ids, length in zip(flat["ids"], flat["lengths"], strict=True)])
    np.testing.assert_array_equal(read["ids"][real], expected)
    assert real.sum() == source.tokens
    assert real[:-1].all()  # only the last row is padded
    assert (read["ids"][~real] == tokenizer.PAD).all()


def test_segments_and_positions_restart_at_each_document(tmp_path: Path) -> None:
    _, source = source_of(tmp_path, ["a b c d e f g", "h i j", "k l m n o p q r s t u v w x y z"])
    sizes = [7, 3, 16]
    assert source.lengths().tolist() == sizes
    read = source.read("row", np.array([0, 1]))
    assert read["segments"].tolist()[0] == [0] * 7 + [1] * 3 + [2] * 6
    assert read["positions"].tolist()[0] == [*range(7), *range(3), *range(6)]
    # A document that runs over into the next row begins again there.
    assert read["segments"].tolist()[1] == [0] * 10 + [-1] * 6
    assert read["positions"].tolist()[1] == [*range(10), *[0] * 6]


def test_rows_may_be_read_in_any_order_and_twice(tmp_path: Path) -> None:
    _, source = source_of(tmp_path, [f"word{n} and some more of it" for n in range(30)])
    some = source.read("row", np.array([3, 0, 3]))
    for place, row in enumerate([3, 0, 3]):
        alone = source.read("row", np.array([row]))
        for name in some:
            np.testing.assert_array_equal(some[name][place], alone[name][0])


def test_plain_is_the_beginning_cut_at_max_length_and_padded_to_the_longest(tmp_path: Path) -> None:
    modality, source = source_of(tmp_path, ["a b c", "a b c d e", "a " * 50])
    short = modality.view("plain", documents(source, [0, 1]), torch.zeros(2, dtype=torch.int64))
    assert short.ids.shape == (2, 5)
    assert short.segments.tolist() == [[0, 0, 0, -1, -1], [0] * 5]
    assert short.positions.tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 3, 4]]
    long = modality.view("plain", documents(source, [2]), torch.zeros(1, dtype=torch.int64))
    assert long.ids.shape == (1, 16)


def stretch(tokens: Tokens, row: int) -> list[int]:
    return tokens.ids[row][tokens.segments[row] == 0].tolist()


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextModality, TokenSource]:
    """One document of 60 different tokens, one of 5, one of 1."""
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 60)]
    texts = [" ".join(letters), " ".join(letters[:5]), "x"]
    return source_of(tmp_path_factory.mktemp("numbered"), texts, max_length=64, tokenizer="wordpiece")


def test_two_spans_of_a_document_are_contiguous_and_share_nothing(numbered: tuple[TextModality, TokenSource]) -> None:
    modality, source = numbered
    raw, seeds = documents(source, [0] * 400), torch.arange(400)
    whole = raw["ids"][0].tolist()
    first, second = (modality.view("span", raw, seeds, index) for index in (0, 1))
    sizes, begins = set(), set()
    for row in range(400):
        a, b = stretch(first, row), stretch(second, row)
        start = whole.index(a[0])
        assert whole[start : start + len(a)] == a
        assert not set(a) & set(b)
        sizes.add(len(a))
        begins.add(start)
    assert sizes == set(range(3, 9))
    assert min(begins) == 0 and max(begins) > 45  # the whole document is visited
    assert first.ids.shape[1] == 8


def test_spans_are_no_wider_than_the_longest_of_them(numbered: tuple[TextModality, TokenSource]) -> None:
    modality, source = numbered
    view = modality.view("span", documents(source, [1] * 8), torch.arange(8))
    assert view.ids.shape[1] == int((view.segments == 0).sum(1).max()) < 5


def test_short_documents_give_what_they_have(numbered: tuple[TextModality, TokenSource]) -> None:
    modality, source = numbered
    raw, seeds = documents(source, [1, 2] * 50), torch.arange(100)
    for index in (0, 1):
        view = modality.view("span", raw, seeds, index)
        sizes = (view.segments == 0).sum(1)
        assert sizes[0::2].min() >= 1 and sizes[0::2].max() <= 4
        assert (sizes[1::2] == 1).all()


def test_a_document_longer_than_the_window_is_read_from_a_seeded_place(tmp_path: Path) -> None:
    words = " ".join(f"{chr(0x4E00 + n)}" for n in range(400))
    _, source = source_of(tmp_path, [words, "x y"], max_length=16, tokenizer="wordpiece", vocab_size=900)
    beginning = documents(source, [0, 1])
    assert beginning["lengths"].tolist() == [16 * token_shards.WINDOW, 2]
    again, other = documents(source, [0, 1], [7, 7]), documents(source, [0, 1], [8, 8])
    assert torch.equal(again["ids"], documents(source, [0, 1], [7, 7])["ids"])
    assert not torch.equal(again["ids"][0], other["ids"][0])
    assert torch.equal(again["ids"][1], beginning["ids"][1])


def test_token_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    modality, _ = source_of(tmp_path, POOL[:1])
    raw = modality.collate([[7, 8, 9], "dog"], tmp_path / "shards")
    assert raw["ids"][0, :3].tolist() == [7, 8, 9]


@pytest.mark.parametrize("item", ["", [], [600_000], [-1], [True], ["x"], {"text": "x"}, None])
def test_an_item_that_is_not_text_is_refused(tmp_path: Path, item: object) -> None:
    modality, _ = source_of(tmp_path, POOL[:1])
    with pytest.raises(DataError) as caught:
        modality.collate(["fine", item], tmp_path / "shards")
    assert (caught.value.code, caught.value.param) == ("invalid_input", "items.1")


@pytest.mark.parametrize(
    "settings",
    [{"span_min": 9, "span_max": 8}, {"max_length": 32, "span_max": 33}, {"vocab_size": 100}, {"tokenizer": "words"}],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TextModality(**settings)
