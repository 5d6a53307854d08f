"""A teacher: a slow copy of what is trained, which gives the targets and takes no gradient. Needs torch.

Mean teacher (Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780) as BYOL, DINO and I-JEPA use it. It is a
part of `Nets`, so one state dict resumes it, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_core.nets import Nets


class Teacher(nn.Module):
    """Copies of some students, by name, each of its parameters an exponential moving average of the student's.

    Batch normalisation in it measures the batches it sees itself, as the student's does; nothing in it is dropped.
    With several processes every one has the same teacher, since the students are the same.

    Attributes:
        copies: the averaged modules, by their students' names.
        momentum: () float32 buffer, share of itself that the teacher kept in the last step.
        progress: () float32 buffer, share of the training that is done.
    """

    momentum: Tensor
    progress: Tensor

    def __init__(self, **students: nn.Module) -> None:
        super().__init__()
        self.copies = nn.ModuleDict({name: deepcopy(student) for name, student in students.items()})
        self.copies.requires_grad_(False)
        self.register_buffer("momentum", torch.ones(()))
        self.register_buffer("progress", torch.zeros(()))

    def train(self, mode: bool = True) -> Teacher:
        """Set the mode of batch normalisation; the rest, dropout above all, stays in evaluation mode."""
        super().train(mode)
        for part in self.copies.modules():
            if not isinstance(part, _BatchNorm):
                part.training = False
        return self

    @torch.no_grad()
    def follow(self, students: Mapping[str, nn.Module], momentum: float, progress: float) -> None:
        """teacher = momentum x teacher + (1 - momentum) x student, in float32, without waiting for the device.

        Args:
            students: by the names given at the start.
            momentum: from 0 (become the student) to 1 (stay).
            progress: of the training, 0 to 1; remembered for schedules.
        """
        mine: list[Tensor] = [*(parameter for name in students for parameter in self.copies[name].parameters())]
        theirs: list[Tensor] = [*(parameter for student in students.values() for parameter in student.parameters())]
        torch._foreach_lerp_(mine, theirs, 1.0 - momentum)
        self.momentum.fill_(momentum)
        self.progress.fill_(progress)


def cosine_momentum(start: float, progress: float) -> float:
    """From `start` at progress 0 to 1 at progress 1 along a half cosine: BYOL, section 3.2; DINO, section 3.1."""
    return 1.0 - (1.0 - start) * (math.cos(math.pi * min(1.0, progress)) + 1.0) / 2.0


def evenness(vectors: Tensor) -> Tensor:
    """() how evenly normalised (N, D) vectors spread over the dimensions: about 1 when evenly, 0 when all are equal.

    The mean deviation of a dimension times the root of D: Chen and He 2021, SimSiam, https://arxiv.org/abs/2011.10566,
    section 4.1. Detached.
    """
    unit = nn.functional.normalize(vectors.detach().float(), dim=1)
    found: Tensor = unit.std(0, correction=0).mean() * vectors.shape[1] ** 0.5
    return found


def teacher_of(nets: Nets) -> Teacher:
    """The part named `teacher`."""
    teacher = nets.parts["teacher"]
    if not isinstance(teacher, Teacher):
        raise TypeError("these nets have no Teacher")
    return teacher
