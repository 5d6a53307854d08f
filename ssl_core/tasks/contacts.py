"""Which residues of a protein touch. Imports without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ssl_core.modalities import MODALITIES
from ssl_core.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.batch import Batch
    from ssl_core.contact_nets import MapHead, PairNet
    from ssl_core.encoders.base import Encoder
    from ssl_core.evaluation.samples import Show
    from ssl_core.nets import Nets

_PAIRS_OF_A_CHAIN = 20_000
_PAIRS_IN_ALL = 1_000_000
"""That a probe is solved on, at most, evenly spread."""
_SHOWN = 4


class Contacts(Task):
    """A map of a chain's pairs of residues: which are in contact.

    `full` trains a convolutional net over the map of pairs together with the encoder. `linear_probe` keeps the encoder
    as it is and solves a logistic regression on its attention maps. Pairs nearer in the chain than `min_separation` are
    neither learned nor answered.
    """

    name: Literal["contacts"] = "contacts"
    mode: Literal["full", "linear_probe"] = Field(
        default="full", description="`linear_probe` keeps the encoder as it is and reads its attention maps"
    )
    min_separation: int = Field(default=6, ge=1, le=100, description="least distance of a pair along the chain")
    channels: int = Field(default=32, ge=4, le=256, description="full: of a pair, in the net over the map")
    blocks: int = Field(default=9, ge=0, le=64, description="full: convolutions of that net")
    head_dropout: float = Field(default=0.1, ge=0, lt=1, description="full: of channels, before each convolution")
    crop: int = Field(default=256, ge=32, le=8192, description="full: residues of a chain in a training step, at most")
    positive_weight: float = Field(default=1.0, ge=0.01, le=1000, description="full: of a contact in the loss")
    penalty: float = Field(default=1.0, gt=0, le=1e9, description="linear_probe: L2 penalty on standardised features")

    modalities: ClassVar[tuple[str, ...]] = tuple(n for n, one in MODALITIES.items() if one.part == "residue")
    views: ClassVar[tuple[str, ...]] = ("plain",)
    target: ClassVar[str] = "contacts"
    least_classes: ClassVar[int] = 0
    usual_batch: ClassVar[int] = 4
    pretrained_rate: ClassVar[float] = 0.3
    paper: ClassVar[str] = "Rao et al. 2020, https://doi.org/10.1101/2020.12.15.422761"
    best_metric: ClassVar[str] = "p_at_l_sep6"

    def build(self, encoder: Encoder, classes: list[str]) -> Nets:
        """With a net over pairs; a probe's encoder takes no gradient."""
        from ssl_core.contact_nets import MapHead, PairNet
        from ssl_core.heads import FinetunedNets, FrozenNets

        trunk = _trunk(encoder)
        if self.mode == "linear_probe":
            return FrozenNets(encoder, pairs=MapHead(trunk))
        return FinetunedNets(encoder, pairs=PairNet(trunk, self.channels, self.blocks, self.head_dropout))

    def begin(self, nets: Nets, batches: Iterable[Batch]) -> bool:
        """Solve the probe, and say so; else begin with the share of contacts there are."""
        import torch

        from ssl_core.contact_nets import MapHead, PairNet

        head = nets.parts["pairs"]
        with torch.no_grad():
            if isinstance(head, MapHead):
                self._solve(nets, head, batches)
                return True
            assert isinstance(head, PairNet)
            found = judged = 0.0
            for batch in batches:
                for row, length in enumerate(_lengths(batch)):
                    truth, counted = self._truth(batch, row, length)
                    found, judged = found + float(truth[counted].sum()), judged + float(counted.sum())
            head.expect(found / max(1.0, judged))
        return False

    def _solve(self, nets: Nets, head: MapHead, batches: Iterable[Batch]) -> None:
        import torch

        from ssl_core.logistic import solve

        vectors, labels = [], []
        for batch in batches:
            for row, hidden, maps in _chains(nets, batch):
                truth, counted = self._truth(batch, row, len(hidden))
                places = counted.flatten().nonzero().squeeze(1)
                places = places[:: 1 + len(places) // _PAIRS_OF_A_CHAIN]
                vectors.append(head.features(hidden, maps).flatten(0, 1)[places])
                labels.append(truth.flatten()[places].long())
        features, known = torch.cat(vectors), torch.cat(labels)
        step = 1 + len(known) // _PAIRS_IN_ALL
        features, known = features[::step], known[::step]
        head.standardise(features)
        head.assign(*solve(head.standard(features), known, head.class_weights, self.penalty))

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Mean binary cross-entropy of the pairs of (B,) chains, or of a stretch of each."""
        import torch
        import torch.nn.functional as F

        from ssl_core import distributed, rng

        weight = torch.tensor(self.positive_weight, device=batch.seeds.device)
        total, judged = torch.zeros((), device=batch.seeds.device), torch.zeros((), device=batch.seeds.device)
        for row, hidden, maps in _chains(nets, batch):
            truth, counted = self._truth(batch, row, len(hidden))
            last = max(0, len(hidden) - self.crop)
            start = int(rng.randint(batch.seeds[row : row + 1], 1, 11, last + 1))
            part = slice(start, start + self.crop)
            logits = _head(nets).pairs(hidden[part], maps[:, part, part])
            each = F.binary_cross_entropy_with_logits(
                logits, truth[part, part].to(logits.dtype), pos_weight=weight.to(logits.dtype), reduction="none"
            )
            total = total + (each * counted[part, part]).sum()
            judged = judged + counted[part, part].sum()
        return {"loss": total / distributed.mean(judged).clamp(min=1)}

    def predict(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """The likeliest pairs of each chain of L residues.

        Returns:
            `pairs` (B, 3, L, 2) int64 and `probability` (B, 3, L): of pairs separated by 6, 12 and 24 residues or more,
            the L likeliest, best first; `length` (B,) residues that were read.
        """
        import torch

        from ssl_core.evaluation.contact_scores import SEPARATIONS, likeliest

        lengths = _lengths(batch)
        most, device = max(lengths, default=0), batch.seeds.device
        pairs = torch.full((len(lengths), len(SEPARATIONS), most, 2), -1, device=device)
        chances = torch.full(pairs.shape[:3], float("nan"), device=device)
        for row, hidden, maps in _chains(nets, batch):
            logits = _head(nets).pairs(hidden, maps).float()
            for at, separation in enumerate(SEPARATIONS):
                best, values = likeliest(logits, max(separation, self.min_separation))
                pairs[row, at, : len(best)], chances[row, at, : len(best)] = best, values.sigmoid()
        return {"pairs": pairs, "probability": chances, "length": torch.tensor(lengths, device=device)}

    def metrics(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float]:
        """`p_at_l_sep6`, `p_at_l2_sep6`, `p_at_l5_sep6`, ...: the precision of the L, L / 2 and L / 5 likeliest pairs
        that are 6, 12 or 24 residues apart or more; the mean over chains that have such pairs."""
        from ssl_core.evaluation.contact_scores import SEPARATIONS, SHARES

        found: dict[str, float] = {}
        for at, separation in enumerate(SEPARATIONS):
            for share in SHARES:
                each = self._precisions(outputs, truth, at, share)
                name = f"p_at_l{'' if share == 1 else share}_sep{separation}"
                known = [value for value in each if value == value]
                found[name] = sum(known) / max(1, len(known))
        return found

    def likelihood(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
        """Of a chain: the share of contacts among its L likeliest pairs."""
        import torch

        return torch.tensor(self._precisions(outputs, truth, 0, 1)).nan_to_num(0.0)

    def answer(self, outputs: dict[str, Tensor], row: int, classes: list[str]) -> dict[str, Any]:
        """`{"contacts": [[i, j, probability], ...]}`: the L likeliest pairs, best first; the first residue is 0."""
        pairs, chances = outputs["pairs"][row, 0].tolist(), outputs["probability"][row, 0].tolist()
        return {"contacts": [[i, j, chance] for (i, j), chance in zip(pairs, chances, strict=True) if i >= 0]}

    def samples(self, nets: Nets, batch: Batch, classes: list[str], show: Show) -> None:
        """Maps of a few chains: what was predicted over the diagonal, what is true under it."""
        import torch

        from ssl_core.evaluation.contact_maps import table

        maps = []
        for row, hidden, looks in list(_chains(nets, batch))[:_SHOWN]:
            chances = _head(nets).pairs(hidden, looks).float().sigmoid()
            truth, _ = self._truth(batch, row, len(hidden))
            maps.append(torch.where(torch.ones_like(truth, dtype=torch.bool).triu(), chances, truth.T.float()).cpu())
        caption = "chains: over the diagonal the probability of a contact, under it the contacts there are"
        if maps:
            show.image("contact_maps", table(maps), caption)

    def _truth(self, batch: Batch, row: int, length: int) -> tuple[Tensor, Tensor]:
        """(L, L) bool: contacts of a chain, over the diagonal; and the pairs that are judged, which lie there too."""
        import torch

        truth = torch.zeros(length, length, dtype=torch.bool, device=batch.seeds.device)
        pairs = batch.targets["contacts"][row]
        pairs = pairs[(pairs[:, 0] >= 0) & (pairs[:, 1] < length)]
        truth[pairs[:, 0], pairs[:, 1]] = True
        counted = torch.ones_like(truth).triu(self.min_separation)
        return truth & counted, counted

    def _precisions(
        self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor], at: int, share: int
    ) -> list[float]:
        from ssl_core.evaluation.contact_scores import hits, precision

        found = []
        for row, length in enumerate(outputs["length"].tolist()):
            pairs = outputs["pairs"][row, at]
            right = hits(pairs[pairs[:, 0] >= 0], truth["contacts"][row], length)
            found.append(precision(right, length, share))
        return found


def _trunk(encoder: Encoder) -> Any:
    from ssl_core.encoders.transformer import Transformer

    if not isinstance(encoder, Transformer):
        raise TypeError("contacts are read from a Transformer")
    return encoder


def _head(nets: Nets) -> MapHead | PairNet:
    from ssl_core.contact_nets import MapHead, PairNet

    head = nets.parts["pairs"]
    assert isinstance(head, MapHead | PairNet)
    return head


def _lengths(batch: Batch) -> list[int]:
    """Residues of each chain."""
    from ssl_core.batch import one_text

    lengths: list[int] = (one_text(batch.views).segments >= 0).sum(1).tolist()
    return lengths


def _chains(nets: Nets, batch: Batch) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(row, (L, D) output, (M, L, L) attention maps) of each chain; the maps of a few chains are alive at a time."""
    from ssl_core.batch import Tokens, one_text
    from ssl_core.contact_nets import looked

    tokens, trunk = one_text(batch.views), _trunk(nets.encoder)
    for row, length in enumerate(_lengths(batch)):
        cut = (part[row : row + 1, :length] for part in (tokens.ids, tokens.segments, tokens.positions))
        hidden, maps = looked(trunk, Tokens(*cut))
        yield row, hidden[0], maps[0]
