"""Encoder shapes: what goes together and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from ssl_core.backbones import BACKBONES, EncoderSpec

TEXT = {"name": "custom", "family": "transformer", "width": 32, "depth": 2, "heads": 2}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"width": 34, "heads": 4}, "divisible by twice the heads"),
        ({"heads": 4, "key_value_heads": 3}, "4 heads cannot share 3 key_value_heads"),
        ({"window": 7}, "window 7 must be even"),
        ({"global_every": 3}, "global_every needs a window"),
        ({"local_rotary_base": 1000.0}, "local_rotary_base needs a window and rotary"),
        ({"window": 4, "local_rotary_base": 1000.0, "positions": "learned"}, "needs a window and rotary"),
        ({"window": 4, "local_rotary_base": 10.0}, "0 or at least 100"),
        ({"norm": "post", "first_norm": True}, "first_norm is for norm pre with embedding_norm"),
        ({"embedding_norm": False, "first_norm": True}, "first_norm is for norm pre with embedding_norm"),
        ({"pooling": "attention"}, "not by attention"),
        ({"positions": "sincos"}, "has positions rotary, learned, none, not sincos"),
        ({"patch_size": 4}, "patch_size is for vit"),
        ({"patch_stride": 20}, "patch_stride is for vit"),
        ({"stem_width": 64}, "stem_width is for wave"),
        ({"family": "convnet", "attention": "causal"}, "attention is for transformer"),
        ({"family": "resnet", "depth": 34}, "depth 18 or 50, not 34"),
        ({"family": "resnet", "depth": 18, "stem": "medium"}, "small or large"),
    ],
)
def test_a_shape_that_does_not_go_together_is_refused_by_name(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        EncoderSpec.model_validate({**TEXT, **fields})


def test_a_shape_stored_before_a_field_existed_reads_as_it_was() -> None:
    old = {"name": "text-tiny", "family": "transformer", "width": 128, "depth": 2, "heads": 2}
    assert EncoderSpec.model_validate(old) == BACKBONES["text-tiny"]


@pytest.mark.parametrize("row", BACKBONES.values(), ids=BACKBONES)
def test_a_shape_survives_json(row: EncoderSpec) -> None:
    assert EncoderSpec.model_validate_json(row.model_dump_json()) == row
