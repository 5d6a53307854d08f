"""Protein chains: the alphabet, and chains on their way into a dataset: cleaned, checked, measured, sketched.

The tokens and their ids are those of ESM-2 (Lin et al. 2023, https://www.science.org/doi/10.1126/science.ade2574), so
its weights fit. What a chain may be written with:

* the twenty amino acids and X (any), B (D or N), Z (E or Q), U (selenocysteine), O (pyrrolysine), each a token of its
  own, in either case (lower case is soft masking); J (L or I), which ESM-2 does not have, becomes X;
* gaps of an alignment, `-` and `.`, and white space are dropped: the chain is what is left;
* one `*`, the stop codon, at the end is dropped; one inside means that this is no chain, and is refused;
* anything else is refused, and named with its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssl_core.data import duplicates
from ssl_core.errors import DataError
from ssl_core.modalities.base import Examined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

TOKENS = (
    "<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>",
)  # fmt: skip
"""In the order of their ids."""
CLS, PAD, EOS, UNK, MASK = 0, 1, 2, 3, 32
RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO"
"""What a canonical chain is written with."""
MAX_RESIDUES = 100_000
"""The longest known chain, titin, has some 35,000."""
PREVIEW_RESIDUES = 1000
_NUCLEOTIDES = frozenset("ACGTUN")
_TELLING = 40
"""Letters from which on a chain of A, C, G, T, U and N alone is taken for nucleic acid."""
_DROPPED = str.maketrans("", "", "-. \t\r\n\v\f")
_ANY = str.maketrans("J", "X")


def clean(value: Any) -> bytes:
    """The letters of a chain, as the module says.

    Raises:
        DataError: `wrong_type`, `empty_sequence`, `invalid_residue`, `sequence_too_long`, `not_a_protein`.
    """
    if not isinstance(value, str):
        raise DataError("wrong_type", "the sequence is not a string")
    chain = value.upper().translate(_DROPPED).removesuffix("*").translate(_ANY)
    if not chain:
        raise DataError("empty_sequence", "the sequence has no residue")
    wrong = next((at for at, letter in enumerate(chain) if letter not in RESIDUES), None)
    if wrong is not None:
        raise DataError("invalid_residue", _complaint(chain[wrong], wrong + 1))
    if len(chain) > MAX_RESIDUES:
        message = f"a sequence has at most {MAX_RESIDUES:,} residues, this has {len(chain):,}"
        raise DataError("sequence_too_long", message)
    if len(chain) >= _TELLING and _NUCLEOTIDES.issuperset(chain):
        message = "the sequence is of A, C, G, T, U and N alone: nucleic acid; translate it to protein first"
        raise DataError("not_a_protein", message)
    return chain.encode("ascii")


def _complaint(letter: str, place: int) -> str:
    if letter == "*":
        return f"residue {place} is '*', a stop codon inside the sequence; it may only end one"
    return f"residue {place} is {letter!r}; allowed: {''.join(sorted(RESIDUES))}, J, and - . for gaps"


def examine(content: bytes) -> Examined:
    """Of cleaned letters; its length is in residues."""
    chain = content.decode("ascii")
    return Examined(
        columns={"protein": chain},
        length=len(chain),
        sketch=lambda: duplicates.residue_sketch(content),
        preview=lambda: {"protein": chain[:PREVIEW_RESIDUES]},
    )


def encode(chain: str | bytes) -> NDArray[np.uint8]:
    """(residues,) token ids of cleaned letters."""
    import numpy as np

    table = np.full(256, UNK, dtype=np.uint8)
    for index, token in enumerate(TOKENS):
        if len(token) == 1:
            table[ord(token)] = index
    letters = chain if isinstance(chain, bytes) else chain.encode("ascii")
    ids: NDArray[np.uint8] = table[np.frombuffer(letters, dtype=np.uint8)]
    return ids


def places(chains: list[str]) -> list[NDArray[np.int64]]:
    """(residues,) the token of each residue of a chain, cleaned or as a caller sent it."""
    import numpy as np

    return [np.arange(len(clean(chain)), dtype=np.int64) for chain in chains]


def tokenizer() -> Tokenizer:
    """The alphabet for the public `tokenizers` library: one token a letter of a cleaned chain, nothing around it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({token: index for index, token in enumerate(TOKENS)}, unk_token=TOKENS[UNK]))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens([token for token in TOKENS if len(token) > 1])
    return made


def facts(max_length: int) -> dict[str, Any]:
    """What an encoder of chains must know."""
    return {
        "vocab_size": len(TOKENS), "max_length": max_length, "pad_id": PAD, "unk_id": UNK, "cls_id": CLS,
        "sep_id": EOS, "mask_id": MASK,
    }  # fmt: skip
