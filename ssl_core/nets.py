"""Everything a learner learns or averages. Needs torch."""

from __future__ import annotations

from torch import nn

from ssl_core.encoders.base import Encoder


class Nets(nn.Module):
    """Named parts with a typed encoder; one `state_dict` resumes any objective or task.

    Attributes:
        encoder: the trunk that is exported.
        parts: heads, decoders, teachers, queues (as buffers), by name.
    """

    def __init__(self, encoder: Encoder, **parts: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.parts = nn.ModuleDict(parts)
