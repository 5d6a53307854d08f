"""Log-mel spectrograms against an independent float64 implementation; warps and stripes against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssl_core.spectrograms import Analysis, log_mel, mel_weights, stripes, warp_matrix

SHAPES = [Analysis(16_000, 400, 160, 64), Analysis(8_000, 200, 80, 32), Analysis(16_000, 512, 256, 80)]


@pytest.mark.parametrize("analysis", SHAPES, ids=str)
def test_it_equals_the_public_formula_in_float64(analysis: Analysis) -> None:
    audio_utils = pytest.importorskip("transformers.audio_utils")
    audio = np.random.default_rng(0).normal(0, 0.1, analysis.rate // 2)
    filters = audio_utils.mel_filter_bank(
        analysis.points // 2 + 1, analysis.mels, 0, analysis.rate / 2, analysis.rate, norm=None, mel_scale="htk"
    )
    window = audio_utils.window_function(analysis.window, "hann", frame_length=analysis.points)
    power = audio_utils.spectrogram(
        audio, window, analysis.points, analysis.hop, fft_length=analysis.points, power=2.0, center=True,
        pad_mode="constant", mel_filters=filters / filters.sum(0), mel_floor=0.0,
    )  # fmt: skip
    expected = np.log(power / (window**2).sum() + analysis.floor)[:, : len(audio) // analysis.hop]
    found = log_mel(torch.from_numpy(audio)[None], analysis)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    single = log_mel(torch.from_numpy(audio)[None].float(), analysis)[0].numpy()
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-3)


def test_white_noise_has_its_variance_in_every_band_whatever_the_sizes() -> None:
    audio = 0.1 * torch.randn(64, 8000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for analysis in SHAPES:
        power = log_mel(audio, analysis)[:, :, 2:-2].exp().mean(dim=(0, 2))
        # A band of 0 Hz alone has a real value, not a complex one: twice the power's spread, not another mean.
        np.testing.assert_allclose(power[2:].numpy(), 0.01, rtol=0.12)


def test_every_band_hears_something_even_where_there_are_more_bands_than_bins() -> None:
    weights = mel_weights(Analysis(8_000, 64, 32, 64))
    np.testing.assert_allclose(weights.sum(0).numpy(), 1.0, rtol=1e-5)


def test_a_warp_of_nothing_changes_nothing_and_one_of_two_takes_every_second_piece() -> None:
    line = torch.arange(16.0)
    still, twice = warp_matrix(torch.tensor([1.0, 2.0]), torch.zeros(2), 16)
    torch.testing.assert_close(still @ line, line)
    torch.testing.assert_close((twice @ line)[5:11], torch.tensor([2.5, 4.5, 6.5, 8.5, 10.5, 12.5]))
    moved = warp_matrix(torch.ones(1), torch.tensor([0.25]), 16)[0]
    torch.testing.assert_close((moved @ line)[:12], line[4:])


def test_stripes_are_at_most_as_wide_as_allowed_and_lie_anywhere() -> None:
    draws = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0))
    hidden = stripes(draws, 40, 0.25)
    width = hidden.sum(1)
    assert width.max() <= 10 and width.min() == 0
    assert float(width.float().mean()) == pytest.approx(5, abs=0.2)
    assert hidden.any(0).all()
    edges = hidden.int().diff(dim=1).abs().sum(1)
    assert edges.max() <= 2
