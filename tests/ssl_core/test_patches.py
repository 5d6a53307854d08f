"""Grids of patches: cut and put together, hidden at random and in blocks."""

from __future__ import annotations

import pytest
import torch

from ssl_core.patches import (
    Blocks,
    hide_at_random,
    normalised_patches,
    patchify,
    take,
    unpatchify,
)

SEEDS = torch.arange(300)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 16, 4)])
def test_patches_can_be_put_together_again(shape: tuple[int, ...]) -> None:
    pictures = torch.randn(shape)
    patches = patchify(pictures, 4)
    assert patches.shape == (2, shape[2] * shape[3] // 16, 16 * shape[1])
    assert torch.equal(unpatchify(patches, 4, (shape[2], shape[3])), pictures)


def test_patches_are_numbered_row_by_row_with_channels_last() -> None:
    pictures = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    patches = patchify(pictures, 2)
    # The second row of patches, third column.
    assert patches[0, 5].tolist() == [int(pictures[0, c, r, w]) for r in (2, 3) for w in (4, 5) for c in (0, 1)]


def test_a_picture_that_is_not_made_of_whole_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="8 x 10 are not made of patches of 4"):
        patchify(torch.zeros(1, 3, 8, 10), 4)


def test_normalised_patches_have_mean_zero_and_deviation_one() -> None:
    made = normalised_patches(5 + 3 * torch.randn(4, 6, 48))
    torch.testing.assert_close(made.mean(-1), torch.zeros(4, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(made.std(-1), torch.ones(4, 6), atol=1e-4, rtol=0)
    assert torch.isfinite(normalised_patches(torch.full((1, 1, 4), 7.0))).all()


@pytest.mark.parametrize(
    ("count", "share", "kept"), [(64, 0.75, 16), (196, 0.75, 49), (4, 0.75, 1), (4, 0.99, 1), (4, 0.05, 3)]
)
def test_every_patch_is_kept_or_hidden_once(count: int, share: float, kept: int) -> None:
    keep, hide = hide_at_random(SEEDS, count, share)
    assert keep.shape == (300, kept)
    assert torch.equal(torch.cat([keep, hide], 1).sort(1).values, torch.arange(count).expand(300, count))


def test_every_patch_is_hidden_about_equally_often() -> None:
    _, hide = hide_at_random(torch.arange(2000), 16, 0.75)
    share = torch.bincount(hide.flatten(), minlength=16) / 2000
    assert float((share - 0.75).abs().max()) < 0.05


def test_what_is_hidden_depends_on_the_sample_alone() -> None:
    keep, _ = hide_at_random(SEEDS, 64, 0.75)
    alone, _ = hide_at_random(SEEDS[7:8], 64, 0.75)
    assert torch.equal(keep[7:8], alone)
    assert not torch.equal(keep[0], keep[1])


@pytest.mark.parametrize("grid", [(14, 14), (8, 8), (2, 2), (8, 32)])
def test_blocks_have_a_fixed_shape_and_leave_the_context_alone(grid: tuple[int, int]) -> None:
    blocks = Blocks.of(grid, 4 if min(grid) > 2 else 2, (0.15, 0.2), 1.5)
    context, targets = blocks.draw(SEEDS)
    count = grid[0] * grid[1]
    assert context.shape == (300, blocks.context)
    assert targets.shape == (300, blocks.targets, blocks.block[0] * blocks.block[1])
    assert int(targets.min()) >= 0 and int(targets.max()) < count
    for row in range(300):
        seen, asked = set(context[row].tolist()), set(targets[row].flatten().tolist())
        assert len(seen) == blocks.context
        assert not seen & asked
        assert all(len(set(block)) == len(block) for block in targets[row].tolist())


def test_a_block_is_a_rectangle_that_lies_or_stands() -> None:
    blocks = Blocks.of((14, 14), 4, (0.15, 0.2), 1.5)
    assert blocks.block == (5, 7)
    _, targets = blocks.draw(SEEDS)
    shapes = set()
    for block in targets.flatten(0, 1).tolist():
        rows, columns = {place // 14 for place in block}, {place % 14 for place in block}
        assert set(block) == {14 * row + column for row in rows for column in columns}
        shapes.add((len(rows), len(columns)))
    assert shapes == {(5, 7), (7, 5)}


def test_blocks_reach_every_patch() -> None:
    _, targets = Blocks.of((8, 8), 4, (0.15, 0.2), 1.5).draw(torch.arange(1000))
    assert int(torch.bincount(targets.flatten(), minlength=64).min()) > 0


def test_blocks_that_leave_no_context_are_refused() -> None:
    with pytest.raises(ValueError, match="4 blocks leave too little of 2 x 2 patches"):
        Blocks.of((2, 2), 4, (0.15, 0.2), 1.5)


def test_on_a_coarse_grid_blocks_shrink_until_a_sixth_is_left() -> None:
    blocks = Blocks.of((4, 4), 4, (0.15, 0.2), 1.5)
    assert (blocks.block, blocks.context) == ((1, 1), 12)


def test_take_gathers_whole_rows() -> None:
    rows = torch.arange(24).reshape(2, 4, 3)
    assert take(rows, torch.tensor([[3, 0], [1, 1]])).tolist() == [
        [[9, 10, 11], [0, 1, 2]],
        [[15, 16, 17], [15, 16, 17]],
    ]
