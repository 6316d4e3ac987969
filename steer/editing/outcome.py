"""What is known of a file before its edit, after it, and what became of it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hooks.clip import AudioInfo, ClipWriter, create_audio
from hooks.files import Stamp
from hooks.samples import far_above
from hooks.tags import Tags
from steer.editing.excerpts import Stretch
from steer.editing.voice_measure import Heard
from steer.goals import Changes

INTEGERS = ("PCM", "ULAW", "ALAW", "VORBIS", "OPUS", "MPEG", "IMA", "MS_ADPCM", "GSM", "DPCM", "ALAC")


@dataclass(frozen=True)
class Outcome:
    """What became of one file. Changes are in dB, semitones and %, None where they cannot be measured.

    `measured` compares the output with the input file, over `measured_s` seconds of it, and decides `met`; `channels`
    does so for each channel; `round_trip` compares the codec's edited output with its plain one. `kept` says what else
    changed, and `voice` what was measured for each request of the recipe's voice (`steer.editing.voice_measure`). The
    limiter turned down `limited_db` at most; `clipped` samples were cut off at full scale. `notes` say what there is to
    know of the files, a sentence each: a header that is wrong, titles and marks that the output has no place for.
    """

    source: str
    target: str
    seconds: float
    requested: dict[str, float]
    measured: Changes
    measured_s: float
    met: bool
    strengths: dict[str, float] = field(default_factory=dict)
    clipped: int = 0
    unchanged: bool = False
    round_trip: Changes = field(default_factory=dict)
    channels: list[Changes] = field(default_factory=list)
    limited_db: float = 0.0
    kept: dict[str, Any] = field(default_factory=dict)
    voice: dict[str, Heard] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Excerpts:
    """A file before its edit: its header, the target and its format, and what is tried and measured of it.

    `whole` says that this is all of it, and `stamp` tells whether it is still the same file.
    """

    info: AudioInfo
    target: Path
    kind: tuple[str, str]
    stamp: Stamp | None
    stretches: list[Stretch]
    whole: bool
    tags: Tags

    @property
    def same_kind(self) -> bool:
        return self.kind == (self.info.format, self.info.subtype)

    @property
    def has_full_scale(self) -> bool:
        """Whether the target cannot hold samples beyond 1."""
        return self.kind[1].startswith(INTEGERS)

    def writer(self, force: bool) -> AbstractContextManager[ClipWriter]:
        """Writes the target."""
        info = self.info
        how: dict[str, Any] = {"force": force, "frames": info.frames, "tags": self.tags}
        return create_audio(self.target, info.sample_rate, info.channels, *self.kind, **how)

    def notes(self, unchanged: bool) -> list[str]:
        """What there is to know of the file and of its output; a copy of the input has all that the input has."""
        loudest = max((float(stretch.samples.abs().max()) for stretch in self.stretches), default=0.0)
        notes = [*self.info.notes, *filter(None, [far_above(loudest)])]
        return notes if unchanged and self.same_kind else notes + self.tags.lost(self.kind[0])


@dataclass(frozen=True)
class Edited:
    """A file after its edit; `samples_CN` wait to be written."""

    excerpts: Excerpts
    outcome: Outcome
    samples_CN: Tensor | None
