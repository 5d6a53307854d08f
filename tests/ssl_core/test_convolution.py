"""Our convolutions: of small maps against torch's own, and under bf16 against float32 in memory that is full of NaN."""

from __future__ import annotations

import pytest
import torch

from ssl_core.backbones import EncoderSpec
from ssl_core.convolution import Conv2d
from ssl_core.encoders.convnet import ConvNet
from ssl_core.encoders.resnet import ResNet
from ssl_core.encoders.wave import PositionConvolution
from ssl_core.machine import cpu_precision

on_tiles = pytest.mark.skipif(cpu_precision() == "fp32", reason="bf16 is chosen, and fast, only with matrix tiles")
SHAPES = [(1, 1), (4, 1), (4, 2), (8, 2), (2, 8), (8, 8)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "high", "wide"),
    [(3, 1, 1, 2, 2), (3, 2, 1, 4, 4), (3, 1, 1, 4, 4), (3, 2, 1, 8, 7), (3, 2, 1, 7, 2), (5, 2, 2, 5, 3),
     (1, 2, 0, 4, 4), (7, 4, 3, 9, 9), (3, 3, 0, 5, 5), (2, 2, 0, 4, 4)],
)  # fmt: skip
def test_small_maps_are_as_torch_has_them(
    kernel: int, stride: int, padding: int, high: int, wide: int, bias: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    ours = Conv2d(64, 96, kernel, stride, padding=padding, bias=bias).to(dtype)
    theirs = torch.nn.Conv2d(64, 96, kernel, stride, padding=padding, bias=bias).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 64, high, wide, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    got, wanted = ours(x), theirs(x)
    assert got.shape == wanted.shape and got.shape[2] * got.shape[3] <= 16
    pull = torch.randn_like(wanted)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(got, wanted, **close)
    mine = torch.autograd.grad(got, (x, *ours.parameters()), pull)
    for one, other in zip(mine, torch.autograd.grad(wanted, (x, *theirs.parameters()), pull), strict=True):
        torch.testing.assert_close(one, other, **close)


def test_a_picture_without_gradient_and_a_frozen_kernel() -> None:
    conv, x = Conv2d(64, 64, 3, padding=1), torch.randn(2, 64, 2, 2)
    conv(x).sum().backward()
    assert conv.weight.grad is not None and x.grad is None
    conv.requires_grad_(False)
    x.requires_grad_()
    conv(x).sum().backward()
    assert x.grad is not None
    with torch.inference_mode():
        assert conv(x.detach()).shape == x.shape


def spoil() -> None:
    """Freed memory that a kernel must not read."""
    sizes = (64, 256, 1000, 4096, 20_000, 65_536, 300_000, 1_000_000)
    spoiled = [torch.full((size,), float("nan"), dtype=torch.bfloat16) for size in sizes for _ in range(6)]
    del spoiled


@on_tiles
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 3), (7, 4), (3, 1), (1, 2)])
@pytest.mark.parametrize(("high", "wide"), SHAPES)
def test_bf16_is_near_float32_in_values_and_gradients(kernel: int, stride: int, high: int, wide: int) -> None:
    torch.manual_seed(kernel + wide)
    conv = Conv2d(64, 128, kernel, stride, padding=kernel // 2, bias=False)
    for _ in range(3):
        x = torch.randn(92, 64, high, wide).to(memory_format=torch.channels_last).requires_grad_()
        spoil()
        with torch.autocast("cpu", torch.bfloat16):
            coarse = conv(x)
        pull = torch.randn_like(coarse, dtype=torch.float32)
        spoil()
        got = [coarse, *torch.autograd.grad(coarse, (x, conv.weight), pull.to(coarse.dtype))]
        exact = conv(x)
        wanted = [exact, *torch.autograd.grad(exact, (x, conv.weight), pull)]
        for one, other in zip(got, wanted, strict=True):
            assert float(((one - other).norm() / other.norm()).detach()) < 0.01


@on_tiles
@pytest.mark.parametrize(
    ("encoder", "fields", "facts", "size"),
    [
        (ConvNet, {"family": "convnet", "width": 32, "depth": 4}, {"channels": 1, "size": 64}, (64, 28)),
        (ResNet, {"family": "resnet", "width": 64, "depth": 18}, {"channels": 3, "size": 32}, (32, 32)),
    ],
)
def test_an_encoder_of_narrow_maps_trains_in_bf16(
    encoder: type[ConvNet] | type[ResNet], fields: dict[str, object], facts: dict[str, int], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    net = encoder(EncoderSpec.model_validate({"name": "custom", "heads": 1, "stem": "large", **fields}), facts)
    for _ in range(4):
        spoil()
        with torch.autocast("cpu", torch.bfloat16):
            vectors = net(torch.randn(64, facts["channels"], *size))
        net.zero_grad()
        vectors.float().square().mean().backward()
        assert torch.isfinite(vectors).all()
        assert all(torch.isfinite(each.grad).all() for each in net.parameters() if each.grad is not None)


@on_tiles
@pytest.mark.parametrize("kernel", [1, 31, 32, 128])
@pytest.mark.parametrize(("width", "groups"), [(64, 16), (128, 16), (192, 16), (64, 1)])
@pytest.mark.parametrize("frames", [1, 5, 50])
def test_positions_of_a_waveform_are_near_float32(kernel: int, width: int, groups: int, frames: int) -> None:
    torch.manual_seed(kernel)
    spec = {"name": "custom", "family": "wave", "width": width, "depth": 1, "heads": 1}
    kernels = {"positions": "convolution", "position_kernel": kernel, "position_groups": groups}
    module = PositionConvolution(EncoderSpec.model_validate(spec | kernels))
    x = torch.randn(5, frames, width)
    spoil()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        coarse = module(x)
    with torch.no_grad():
        exact = module(x)
    assert coarse.shape == exact.shape == x.shape
    assert float((coarse - exact).norm() / exact.norm()) < 0.01
