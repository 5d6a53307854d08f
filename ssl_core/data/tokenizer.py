"""Tokenizers: trained on the user's own pool, kept as one `tokenizer.json` that the public `tokenizers` library reads.

Byte-level BPE: Radford et al. 2019 (GPT-2). WordPiece: Schuster and Nakajima 2012, as in BERT (Devlin et al. 2019).
Bytes: the 256 of UTF-8, as in ByT5 (Xue et al. 2021, https://arxiv.org/abs/2105.13626). Characters: those of the pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssl_core.errors import DataError, SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

TokenizerKind = Literal["bpe", "wordpiece", "bytes", "characters"]
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Their ids are their positions, in every tokenizer of the platform."""
PAD, UNK, CLS, SEP, MASK = range(5)
BYTE_ENTRIES = len(SPECIALS) + 256
TRAINING_CHARACTERS = 200_000_000
"""More text than this hardly moves a vocabulary of at most 65,536 entries; the rest of a pool is only encoded."""
_WORD_MARKS = ("Ġ", "▁")  # what byte-level BPE and SentencePiece write for a space
_LINE_MARKS = ("ĉ", "Ċ", "č")  # what byte-level tokenizers write for a tab and the ends of lines; elsewhere letters
_KNOWN_AS = {
    "pad_id": ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>"),
    "unk_id": ("[UNK]", "<unk>", "<|endoftext|>", "<|end_of_text|>"),
    "cls_id": ("[CLS]", "<s>", "<cls>", "<bos>", "<|startoftext|>", "<|begin_of_text|>", "<|endoftext|>"),
    "sep_id": ("[SEP]", "</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
    "mask_id": ("[MASK]", "<mask>"),
}
"""What public tokenizers call them, best first; ours stand first. No other entry ever masks a token."""


def train(texts: Iterable[str], kind: TokenizerKind, vocab_size: int, lowercase: bool) -> Tokenizer:
    """A tokenizer of at most `vocab_size` entries, the five special ones first; one of bytes always has all of them.

    Raises:
        DataError: `empty_dataset`, there is no text to learn from.
    """
    stream = iter(texts)
    first = next(stream, None)
    if first is None:
        raise DataError("empty_dataset", "there is no text to train a tokenizer on")
    if kind == "bytes":
        return _of_bytes(lowercase)
    read = _first_characters(chain([first], stream))
    return (
        _of_characters(read, vocab_size, lowercase)
        if kind == "characters"
        else _of_pieces(read, kind, vocab_size, lowercase)
    )


def _of_pieces(texts: Iterator[str], kind: TokenizerKind, vocab_size: int, lowercase: bool) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    shared: dict[str, Any] = {"vocab_size": vocab_size, "special_tokens": list(SPECIALS), "show_progress": False}
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIALS[UNK]))
        tokenizer.normalizer = _normalizer(lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **shared)
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIALS[UNK]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**shared)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _of_bytes(lowercase: bool) -> Tokenizer:
    """One token a byte: any text comes back to the byte, where case is kept."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    letters = {_letter(byte): len(SPECIALS) + byte for byte in range(256)}
    vocabulary = {name: index for index, name in enumerate(SPECIALS)} | letters
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=SPECIALS[UNK]))
    if lowercase:
        made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIALS))
    return made


def _letter(byte: int) -> str:
    """What byte-level tokenizers write for a byte: itself where it shows, else a letter from U+0100 on, in order."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return chr(byte) if byte in shown else chr(0x100 + sum(other not in shown for other in range(byte)))


def _of_characters(texts: Iterator[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    """One token a character (code point): the most frequent ones, in the order of their code points."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    normalizer = _normalizer(lowercase)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    names = [*SPECIALS, *sorted(ranked[: vocab_size - len(SPECIALS)])]
    made = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=SPECIALS[UNK]))
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens(list(SPECIALS))
    return made


def _normalizer(lowercase: bool) -> Any:
    from tokenizers import normalizers

    return normalizers.Sequence([normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])])


def _first_characters(texts: Iterable[str]) -> Iterator[str]:
    left = TRAINING_CHARACTERS
    for text in texts:
        yield text
        left -= len(text)
        if left < 0:
            return


def load(path: Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        SpecError: `invalid_tokenizer`, unreadable, or without an entry for padding.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception for a malformed file
        raise SpecError("invalid_tokenizer", f"{path.name} is not a tokenizer: {error}") from error
    if "pad_id" not in specials(tokenizer):
        names = ", ".join(_KNOWN_AS["pad_id"])
        raise SpecError("invalid_tokenizer", f"{path.name} must hold an entry that can be padding: one of {names}")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def specials(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of the special entries it has, `pad_id`, `unk_id`, `cls_id`, `sep_id`, `mask_id`; ours have 0 to 4.

    Of an imported tokenizer some may be missing: GPT-2 has one entry that pads, begins and ends, and no mask.
    """
    found: dict[str, int] = {}
    for role, names in _KNOWN_AS.items():
        ids = [index for index in map(tokenizer.token_to_id, names) if index is not None]
        if ids:
            found[role] = ids[0]
    return found


def size(tokenizer: Tokenizer) -> int:
    """Rows that a table for it needs: ids of an imported one may have gaps."""
    return 1 + max(tokenizer.get_vocab().values(), default=0)


def word_starts(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """(vocabulary,) True where a token begins a word: whole-word masking takes it and the tokens up to the next one.

    A token that begins with punctuation begins a word of its own, so that a comma is not masked with the word before.
    """
    import numpy as np

    wordpiece = type(tokenizer.model).__name__ == "WordPiece"
    marks = _WORD_MARKS + (_LINE_MARKS if type(tokenizer.decoder).__name__ == "ByteLevel" else ())
    starts = np.ones(size(tokenizer), dtype=np.bool_)
    special = set(specials(tokenizer).values())
    for token, index in tokenizer.get_vocab().items():
        if index in special:
            continue
        if wordpiece:
            starts[index] = not token.startswith("##")
        else:
            # Non-ASCII bytes are written as letters, so a character cut in two never starts a word in its middle.
            starts[index] = token.startswith(marks) or (not token[:1].isalnum() and token[:1].isascii())
    return starts


def encode(tokenizer: Tokenizer, texts: list[str], framed: bool = False) -> list[list[int]]:
    """Token ids of each text; never empty: a text of no token is one [UNK].

    Args:
        tokenizer: ours, or an imported one.
        texts: what to encode.
        framed: with the special entries that the tokenizer puts around a text, such as [CLS] and [SEP].
    """
    known = specials(tokenizer)
    unknown = known.get("unk_id", known["pad_id"])
    return [encoding.ids or [unknown] for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=framed)]
