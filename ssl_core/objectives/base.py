"""The base of every pretext system. Imports without torch; one objective is one file beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ssl_core.errors import SpecError
from ssl_core.values import Value

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.evaluation.samples import Show
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets


def refuse_causal(name: str, backbone: EncoderSpec) -> None:
    """For objectives that look at both sides of a token.

    Raises:
        SpecError: `backbone_mismatch`, the backbone is causal.
    """
    if backbone.attention == "causal":
        text = f"{name} needs a backbone with attention full: it tells a token from both sides"
        raise SpecError("backbone_mismatch", text, "backbone.attention")


def refuse_undecodable(name: str, backbone: EncoderSpec) -> None:
    """For whatever puts a decoder of the encoder's shape beside it, which shares its token table.

    Raises:
        SpecError: `backbone_mismatch`, no decoder can follow the shape.
    """
    if backbone.window:
        text = f"{name} needs window 0: a decoder of this shape has no windows"
        raise SpecError("backbone_mismatch", text, "backbone.window")
    if backbone.embedding_width not in (0, backbone.width):
        text = f"{name} needs embedding_width 0 or {backbone.width}, the width, not {backbone.embedding_width}"
        raise SpecError("backbone_mismatch", text, "backbone.embedding_width")


class Objective(Value):
    """A frozen value: its fields are its hyperparameters, each with bounds and the paper's default.

    A subclass lives in `ssl_core/objectives/<name>.py` and declares `name: Literal["<name>"] = "<name>"`.
    The API schema, the catalogue, validation and the contract test find it by scanning this folder.
    """

    name: str
    modalities: ClassVar[tuple[str, ...]]
    """Modalities it fits, by name."""
    views: ClassVar[tuple[str, ...]]
    """One named view of the modality for each entry of `batch.views`; all must share one unit (row or document)."""
    paper: ClassVar[str]
    """Where it comes from: title and link."""
    encoders: ClassVar[tuple[str, ...]] = ()
    """Encoder families it needs; empty = any family of its modalities."""

    completes: ClassVar[Literal["continuation", "fill"] | None] = None
    """What its model answers at the predictions endpoint without a task: how a text goes on, or what a mask hides."""
    comparable_loss: ClassVar[bool] = True
    """Whether a lower validation loss means a better encoder, so that it may choose the best weights. Not so where the
    target moves, as with a teacher, a generator or a quantiser."""

    constant_wins: ClassVar[bool] = True
    """Whether features that are alike for all samples may satisfy the loss, as where views or a teacher must be met.
    Where they cannot, because tokens, pixels or the like must be told, a low rank may be a stage that training leaves
    again (a language model learns first how frequent each token is), and is given longer."""
    rate: ClassVar[float] = 1.0
    """The recipe's learning rate, as a share of what suits the encoder."""

    def preparation(self, suited: Modality) -> Modality:
        """The recipe's settings of the modality where the user names none, given those that suit the dataset."""
        return suited

    alive: ClassVar[dict[str, float]] = {}
    """Series of `loss` that tell of a collapse which the encoder's own vectors may hide (behind a projector, batch
    normalisation spreads whatever little is left), and the least value of each in a live run."""

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """The recipe's encoder where the user names none."""
        return modality.default_backbone("base" if queue == "gpu" else "tiny")

    def check(self, backbone: EncoderSpec) -> None:
        """What the objective asks of the encoder beyond its family, at submission.

        Raises:
            SpecError: `backbone_mismatch`; `param` is the field to change.
        """

    def decoder_layers(self, backbone: EncoderSpec) -> int:
        """Layers of a decoder of the encoder's shape that it trains beside it, for the estimate of memory."""
        return 0

    def build(self, encoder: Encoder) -> Nets:
        """The encoder with whatever else is learned or averaged."""
        raise NotImplementedError

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """`{"loss": scalar, ...}`; further entries are detached scalars that become metric series."""
        raise NotImplementedError

    def samples(self, nets: Nets, batch: Batch, show: Show) -> None:
        """Show what a finished run can do: called once at its end, in evaluation mode and without gradients.

        Here: the views, where they are pictures.

        Args:
            nets: trained.
            batch: a few samples that were not trained on, where any were held out.
            show: keeps texts and pictures.
        """
        show.views(batch.views)

    def after_step(self, nets: Nets, progress: float) -> None:
        """For teachers, queues and centres: called after every optimizer step, `progress` in [0, 1]."""
