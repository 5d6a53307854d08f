"""Ridge regression, solved, and the linear layer that predicts a number. Needs torch.

N samples, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_core.nets import Nets

PENALTIES = tuple(float(10.0**power) for power in torch.arange(-1, 6, 0.5).tolist())
USUAL_PENALTY = 100.0
_FOLDS = 5


class Regressor(nn.Module):
    """A linear layer on standardised features, to a standardised number.

    Attributes:
        mean, scale: (D,) buffers, of the training split's features; 0 and 1 until `standardise`.
        centre, spread: () buffers, of its numbers.
    """

    mean: Tensor
    scale: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """(N,) standardised numbers of (N, D) vectors of an encoder."""
        standard = (vectors - self.mean) / self.scale
        numbers: Tensor = self.linear(self.dropout(standard)).squeeze(1)
        return numbers

    def standard(self, numbers: Tensor) -> Tensor:
        """(N,) as the layer predicts them."""
        return ((numbers - self.centre) / self.spread).float()

    def own(self, standard: Tensor) -> Tensor:
        """(N,) as the dataset has them; the way back from `standard`."""
        return standard * self.spread + self.centre

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (1, D) and bias (1,) of one linear layer from vectors to the dataset's own numbers."""
        weight = self.linear.weight.detach().double() / self.scale.double()
        bias = self.linear.bias.detach().double() - weight @ self.mean.double()
        spread, centre = self.spread.double(), self.centre.double()
        return (spread * weight).float(), (spread * bias + centre).float()

    @torch.no_grad()
    def centre_on(self, numbers: Tensor) -> None:
        """Take mean and deviation of (N,) numbers; equal ones are only centred."""
        deviation = numbers.double().std(correction=0)
        self.centre.copy_(numbers.double().mean())
        self.spread.copy_(torch.where(deviation > 0, deviation, 1.0))

    @torch.no_grad()
    def fit(self, vectors: Tensor, numbers: Tensor, penalty: float | None) -> None:
        """Standardise (N, D) vectors and set the layer to the solution for (N,) numbers; None = choose the penalty."""
        deviation = vectors.double().std(0, correction=0)
        self.mean.copy_(vectors.double().mean(0))
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))
        features, wanted = (vectors - self.mean) / self.scale, self.standard(numbers)
        weight, bias = solve(features, wanted, choose(features, wanted) if penalty is None else penalty)
        self.linear.weight.copy_(weight[None])
        self.linear.bias.copy_(bias)


def regressor_of(nets: Nets) -> Regressor:
    """The part named `regressor`."""
    head = nets.parts["regressor"]
    if not isinstance(head, Regressor):
        raise TypeError("these nets have no Regressor")
    return head


def solve(features: Tensor, numbers: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight (D,) and bias () with the least squared error + penalty x |weight|^2, scikit-learn's `Ridge(alpha)`.

    In float64, by the normal equations of the smaller side. The bias is not penalised.

    Args:
        features: (N, D).
        numbers: (N,).
        penalty: positive.
    """
    x, y = features.double(), numbers.double()
    middle, centre = x.mean(0), y.mean()
    x, y = x - middle, y - centre
    count, width = x.shape
    if width <= count:
        normal = x.T @ x + penalty * torch.eye(width, dtype=x.dtype, device=x.device)
        weight = torch.linalg.solve(normal, x.T @ y)
    else:
        gram = x @ x.T + penalty * torch.eye(count, dtype=x.dtype, device=x.device)
        weight = x.T @ torch.linalg.solve(gram, y)
    return weight.to(features.dtype), (centre - middle @ weight).to(features.dtype)


def choose(features: Tensor, numbers: Tensor) -> float:
    """The penalty of `PENALTIES` with the least squared error held out in five-fold cross-validation; `USUAL_PENALTY`
    where there are fewer than ten samples. Arguments as for `solve`."""
    if len(numbers) < 2 * _FOLDS:
        return USUAL_PENALTY
    fold = torch.arange(len(numbers), device=features.device) % _FOLDS

    def error(penalty: float) -> float:
        total = 0.0
        for held in range(_FOLDS):
            inside = fold != held
            # Fewer samples are fitted than in the end, so the penalty shrinks with them.
            weight, bias = solve(features[inside], numbers[inside], penalty * float(inside.double().mean()))
            total += float((features[~inside] @ weight + bias - numbers[~inside]).double().square().sum())
        return total

    return min(PENALTIES, key=error)
