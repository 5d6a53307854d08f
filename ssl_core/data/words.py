"""Words of a text, which are what white space separates, and the tokens they begin at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_core.data import tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"\S+")


def first_tokens(items: list[Any], path: Path, framed: bool) -> list[NDArray[np.int64]]:
    """(words,) of each text, the number of the first token that has a character of the word; never descending.

    A word of which the tokenizer keeps nothing shares the token behind it, or the text's last one.

    Args:
        items: texts; a list of token ids counts as that many words.
        path: `tokenizer.json`.
        framed: the text's tokens stand between special ones.
    """
    import numpy as np

    codec = tokenizer.load(path)
    texts = [number for number, item in enumerate(items) if isinstance(item, str)]
    encoded = codec.encode_batch([items[number] for number in texts], add_special_tokens=framed)
    found = [np.arange(len(item) if isinstance(item, list) else 0, dtype=np.int64) for item in items]
    for number, encoding in zip(texts, encoded, strict=True):
        begins = np.array([match.start() for match in _WORD.finditer(items[number])], dtype=np.int64)
        # Special tokens stand for no character: (0, 0). Ends grow along the text, so the first one behind is sought.
        ends = np.maximum.accumulate(np.array([end for _, end in encoding.offsets] or [0], dtype=np.int64))
        found[number] = np.minimum(np.searchsorted(ends, begins, side="right"), len(ends) - 1)
    return found
