"""The optimizer and its learning rate, both pure functions of the plan and the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ssl_core.spec import OptimizerSpec


def build_optimizer(nets: nn.Module, spec: OptimizerSpec, rate: float) -> Optimizer:
    """AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", arXiv 1711.05101) or SGD with momentum.

    Biases and norms (one dimension or less) are not decayed; the encoder may learn at a share of the rate.
    Frozen parameters (`requires_grad` False) are left out.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in nets.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("encoder."), parameter.ndim >= 2), []).append(parameter)
    rows: list[dict[str, Any]] = [
        {
            "params": parameters,
            "weight_decay": spec.weight_decay if decayed else 0.0,
            "scale": spec.encoder_learning_rate_scale if in_encoder else 1.0,
        }
        for (in_encoder, decayed), parameters in groups.items()
    ]
    if spec.name == "sgd":
        return SGD(rows, lr=rate, momentum=spec.beta1)
    return AdamW(rows, lr=rate, betas=(spec.beta1, spec.beta2), eps=1e-8, fused=True)


def rate_factor(spec: OptimizerSpec, step: int, total: int) -> float:
    """Share of the peak rate at step `step` (from 0) of `total`: linear warm-up, then cosine, linear or constant."""
    warmup = max(1, round(spec.warmup_fraction * total)) if spec.warmup_fraction > 0 else 0
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if spec.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return max(0.0, 1.0 - done) if spec.schedule == "linear" else 1.0


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * float(group["scale"])


def optimizer_tensors(optimizer: Optimizer, nets: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state by parameter name, `exp_avg/encoder.layers.0.weight`: readable, and free of pickle."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in nets.named_parameters()}
    return {
        f"{key}/{names[parameter]}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, nets: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`. Raises KeyError for a parameter that `nets` does not have."""
    parameters = dict(nets.named_parameters())
    for full_name, value in tensors.items():
        key, name = full_name.split("/", 1)
        parameter = parameters[name]
        # The step counter stays where the optimizer makes it: on the CPU, or beside the weights when fused on CUDA.
        optimizer.state[parameter][key] = value.clone().to(parameter.device)


def clip(nets: nn.Module, norm: float) -> Tensor:
    """Scale the gradients to at most `norm`; returns the norm before, as a tensor (no host sync)."""
    return torch.nn.utils.clip_grad_norm_((p for p in nets.parameters() if p.requires_grad), norm)
