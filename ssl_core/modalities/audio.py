"""Sound: clips of one length at one rate, as log-mel pictures or as waveforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ssl_core.errors import SpecError
from ssl_core.modalities.base import Column, Examined, Modality, Source, Unit

if TYPE_CHECKING:
    from array import array

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.data.archives import Member
    from ssl_core.spec import DatasetFacts
    from ssl_core.spectrograms import Analysis

_READS = {"convnet": "log_mel", "resnet": "log_mel", "vit": "log_mel", "wave": "waveform"}
_ROUNDED = 16
"""Frames come in multiples of this, so that halvings and patches come out even."""


class AudioModality(Modality):
    """Preparation and augmentation settings of sound.

    Every clip is mixed to one channel, resampled and kept whole; the encoder sees a window of it. A longer clip is seen
    in its middle (`plain`) or in a random part, a shorter one lies in the middle with silence around it.

    Views: `plain`, `light` (moved by up to an eighth of the window), `part` (a random part at a random place), `global`
    (the same, quieter, in noise; of log-mel pictures also stretched in time and pitch, and masked as in SpecAugment,
    Park et al. 2019, https://arxiv.org/abs/1904.08779).
    """

    name: Literal["audio"] = "audio"
    representation: Literal["log_mel", "waveform"] = Field(
        default="log_mel",
        description="what the encoder reads: log-mel pictures (convnet, resnet, vit), or samples (wave)",
    )
    sample_rate: int = Field(default=16_000, ge=1_000, le=48_000, description="Hz; every clip is resampled to it")
    seconds: float = Field(
        default=1.0, ge=0.05, le=60, description="length of the window, rounded up to 16 frames (or 16 x `hop_ms`)"
    )
    mels: int = Field(default=64, ge=16, le=256, multiple_of=16, description="log_mel: bands, the picture's height")
    window_ms: float = Field(default=25.0, ge=5, le=200, description="log_mel: length of a frame")
    hop_ms: float = Field(default=10.0, ge=1, le=100, description="log_mel: from frame to frame")
    even_loudness: bool = Field(default=True, description="bring every clip to the same peak; off: loudness tells")
    crop_min: float = Field(default=0.8, ge=0.05, le=1, description="`part`, `global`: least share of a clip kept")
    gain_db: float = Field(default=10.0, ge=0, le=60, description="`global`: at most this much quieter")
    noise_db: float = Field(default=30.0, ge=0, le=60, description="`global`: noise of -60 dB and up to this much more")
    noise_probability: float = Field(default=0.5, ge=0, le=1, description="`global`: share of clips with noise")
    stretch: float = Field(default=0.3, ge=0, le=0.5, description="`global`, log_mel: most change of speed")
    pitch: float = Field(default=0.2, ge=0, le=0.5, description="`global`, log_mel: most change of the mel scale")
    mask_time: float = Field(
        default=0.2, ge=0, le=0.5, description="`global`, log_mel: widest stripe, share of the frames"
    )
    mask_bands: float = Field(
        default=0.2, ge=0, le=0.5, description="`global`, log_mel: widest stripe, share of the bands"
    )

    formats: ClassVar[tuple[str, ...]] = (".zip", ".tar", ".tar.gz", ".tgz", ".parquet")
    columns: ClassVar[dict[str, Column]] = {
        "audio": Column(
            usual=("audio", "sound", "speech", "wav"),
            media=("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave", "audio/flac", "audio/x-flac",
                   "audio/ogg", "audio/opus", "audio/mpeg", "audio/mp3"),
        )
    }  # fmt: skip
    families: ClassVar[tuple[str, ...]] = ("convnet", "resnet", "vit", "wave")
    batches: ClassVar[dict[Unit, tuple[int, int]]] = {"document": (128, 512)}
    # Pools of clips are small: of 2,700 spoken digits, contrast learned still much after 30 passes (held-out training
    # clips, a probe of 5 labels a class: 0.77 at 30 passes, 0.81 at 80).
    epochs: ClassVar[int] = 100
    measures: ClassVar[tuple[str, ...]] = ("rate", "channels")
    views: ClassVar[dict[str, Unit]] = dict.fromkeys(("plain", "light", "part", "global"), "document")

    @model_validator(mode="after")
    def _sizes(self) -> AudioModality:
        if self.hop_ms > self.window_ms:
            raise ValueError(f"hop_ms {self.hop_ms} is over window_ms {self.window_ms}: sound between frames is lost")
        if self.hop < 2 or self.sample_rate * self.window_ms < 16_000:
            raise ValueError(f"at {self.sample_rate} Hz a frame needs at least 16 samples and a hop at least 2")
        if self.window > 2**21:
            raise ValueError(f"a window of {self.window:,} samples; at most {2**21:,}: lower seconds or sample_rate")
        return self

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return round(self.sample_rate * self.hop_ms / 1000)

    @property
    def frames(self) -> int:
        """Of the window."""
        return _ROUNDED * max(1, -int(-self.seconds * 1000 / self.hop_ms // _ROUNDED))

    @property
    def window(self) -> int:
        """Samples that the encoder sees."""
        return self.frames * self.hop

    @property
    def analysis(self) -> Analysis:
        """The sizes of its spectrograms. Needs torch."""
        from ssl_core.spectrograms import Analysis

        return Analysis(self.sample_rate, round(self.sample_rate * self.window_ms / 1000), self.hop, self.mels)

    def shape(self) -> dict[str, Any]:
        """What an encoder must know: a log-mel picture's `height` (bands), `width` (frames) and shorter side `size`, or
        a waveform's `samples`."""
        told: dict[str, Any] = {"channels": 1, "sample_rate": self.sample_rate, "samples": self.window}
        if self.representation == "waveform":
            return told
        return {**told, "height": self.mels, "width": self.frames, "size": min(self.mels, self.frames)}

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """By the signature."""
        from ssl_core.data import sounds

        return sounds.kind_of(head) is not None

    @classmethod
    def from_member(cls, member: Member) -> dict[str, bytes]:
        """A sound file; see `ssl_core.data.sound_rows.from_member`."""
        from ssl_core.data import sound_rows

        return {"audio": sound_rows.from_member(member)}

    @classmethod
    def from_row(cls, values: Mapping[str, Any]) -> dict[str, bytes]:
        """A sound file; see `ssl_core.data.sound_rows.from_value`."""
        from ssl_core.data import sound_rows

        return {"audio": sound_rows.from_value(values["audio"])}

    @classmethod
    def examine(cls, content: Mapping[str, bytes]) -> Examined:
        """Lengths are milliseconds. Every file is decoded once, as a proof."""
        from ssl_core.data import sound_rows

        return sound_rows.examine(content["audio"])

    @classmethod
    def facts(cls, lengths: array[int], measures: Mapping[str, array[int]]) -> dict[str, Any]:
        """`numbers`: the median `sample_rate` (Hz), `usual_milliseconds` (19 of 20 clips are no longer)."""
        from ssl_core.data.profile import spread

        rate, usual = spread(measures["rate"])["median"], spread(lengths)["p95"]
        return {"channels": max(measures["channels"]), "numbers": {"sample_rate": rate, "usual_milliseconds": usual}}

    @classmethod
    def suited(cls, dataset: DatasetFacts) -> AudioModality:
        """The dataset's median rate up to 16 kHz; a window that 19 of 20 clips fit into, up to 4 seconds."""
        rate = max(1_000, min(16_000, dataset.numbers.get("sample_rate", 16_000)))
        seconds = max(0.16, min(4.0, dataset.numbers.get("usual_milliseconds", 1_000) / 1000))
        return cls.model_validate({"sample_rate": rate, "seconds": round(seconds, 3)})

    @classmethod
    def near(cls, sketches: list[Any]) -> NDArray[np.bool_]:
        """See `ssl_core.data.duplicates.near_sounds`."""
        from ssl_core.data import duplicates

        return duplicates.near_sounds(sketches)

    def prepare(self, dataset: Path, out: Path, tokenizer: Path | None, progress: Callable[[int, int], None]) -> None:
        """See `ssl_core.data.audio_shards.prepare`; a tokenizer means nothing here."""
        from ssl_core.data import audio_shards

        audio_shards.prepare(self, dataset, out, progress)

    def open(self, prepared: Path) -> Source:
        """An `AudioSource`."""
        from ssl_core.data.audio_shards import AudioSource

        return AudioSource(prepared)

    def view(self, name: str, raw: Mapping[str, Tensor], seeds: Tensor, index: int = 0) -> Tensor:
        """(B, 1, mels, frames) float32, normalised, or (B, samples), each of mean 0 and variance 1."""
        from ssl_core.data import audio_views

        if name == "plain":
            return audio_views.plain(raw, self)
        return audio_views.RANDOM[name](raw, seeds, index, self)

    def collate(self, items: list[Any], prepared: Path) -> Mapping[str, Tensor]:
        """From the bytes of sound files; see `ssl_core.data.audio_views.collate`."""
        from ssl_core.data import audio_views

        return audio_views.collate(items, prepared, self)

    def default_backbone(self, size: str) -> EncoderSpec:
        """A small conv net, a ResNet-18 or a ResNet-50 on log-mel pictures; wav2vec 2.0's on waveforms."""
        from ssl_core.backbones import BACKBONES

        if self.representation == "waveform":
            return BACKBONES["audio-wave-tiny" if size == "small" else f"audio-wave-{size}"]
        names = {"tiny": "audio-convnet", "small": "audio-convnet", "base": "image-resnet18", "large": "image-resnet50"}
        return BACKBONES[names[size]]

    def check(self, backbone: EncoderSpec, dataset: DatasetFacts) -> None:
        """A family reads pictures or samples; patches fill a picture."""
        from ssl_core.backbones import patch_grid

        reads = _READS.get(backbone.family, self.representation)
        if reads != self.representation:
            text = f"a {backbone.family} reads {reads}, and modality.representation is {self.representation}"
            raise SpecError("infeasible_config", text, "modality.representation")
        if backbone.family == "vit":
            patch_grid(backbone, self.mels, self.frames)

    def slots(self, view: str) -> int:
        """Pixels of the picture, or samples."""
        return self.mels * self.frames if self.representation == "log_mel" else self.window
