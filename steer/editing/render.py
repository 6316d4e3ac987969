"""Sound before and after an edit, chunk by chunk at the file's own rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hooks import at_time
from hooks.model import Codec
from steer.editing.chunks import file_plan, fitted
from steer.editing.limiter import limited
from steer.editing.manner import Manner
from steer.editing.transfer import Gain, amplified, between, change_of, crossed, envelope_of, grid, inverse, spectrum
from steer.edits import Edit
from steer.errors import EditError
from steer.steered import SteeredModel
from steer.stream import Chunks, Queue, round_trip
from steer.values import Span

SiteEdits = Mapping[str, Sequence[Edit]]
Planned = Callable[[Tensor, Tensor, float], SiteEdits]
"""Edits that depend on the sound: takes the latent [C, T, D] of a chunk, its sound [C, N] at the codec's rate and the
second at which it starts."""
UNPITCHED, PITCHED = 0.03, 0.08
"""Voicing below which a frame has no pitch to move, and above which all of it is moved. Breathy singing is at 0.1, rain
and fricatives below 0.02."""
EDGE_S = 0.01
"""Length of the cross-fades inside the edited spans."""


@dataclass
class Known:
    """What does not depend on the edit, of one chunk: kept for further trials."""

    codec_CN: Tensor
    """What the codec is given, at its rate."""
    latent_BTD: Tensor | None = None
    plain_CN: Tensor | None = None
    spectra: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.spectra:
            self.spectra[name] = make()
        return self.spectra[name]


Memory = dict[tuple[float, int], Known]
"""By a chunk's start in seconds and its length."""


class Renderer:
    """Renders sound with the features of a codec edited, and counts what came of the last sound: `turned_down_db` is
    the most that the limiter did, `unmoved` what no pitch edit could move."""

    def __init__(self, steered: SteeredModel, chunk_s: float) -> None:
        assert isinstance(steered.model, Codec) and steered.model.sample_rate is not None
        self.steered, self.codec, self.chunk_s = steered, steered.model, chunk_s
        self.rate = steered.model.sample_rate
        self._begin()

    def _begin(self) -> None:
        self.turned_down_db = self._power = self._unmoved_power = 0.0

    @property
    def unmoved(self) -> float | None:
        """The share of the sound's energy that has no single pitch and stayed where it was while the pitch of the rest
        moved: noise, drums, most of a chord. None where no pitch moved."""
        return self._unmoved_power / self._power if self._power else None

    def note_power(self, sound_CFT: Tensor, pitched_CFT: Tensor) -> None:
        """Count a sound of which a share (0 to 1) moves with the pitch."""
        power_CFT = sound_CFT.abs().square()
        self._power += float(power_CFT.sum())
        self._unmoved_power += float((power_CFT * (1 - pitched_CFT)).sum())

    def render(
        self,
        blocks: Iterable[Tensor],
        sample_rate: int,
        edits: SiteEdits,
        manner: Manner,
        start_s: float = 0.0,
        memory: Memory | None = None,
        planned: Planned | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks [C, n] of a sound (float64, at `sample_rate` Hz) before and after, together as long as the input.
        What came of it is counted anew.

        `start_s` is the time of the first sample, for edits with `during`. A `memory` is for further passes over the
        same blocks.

        Raises:
            EditError: the edit makes the sound overflow.
        """
        self._begin()
        passage = Passage(self, sample_rate, edits, manner, start_s, memory, planned)
        chunks = Chunks(file_plan(self.codec, sample_rate, self.chunk_s), sample_rate, passage, torch.float64)
        waiting: Queue | None = None
        for block_CN in blocks:
            waiting = waiting or Queue(block_CN.shape[0], torch.float64)
            waiting.add(block_CN)
            for after_CN in chunks.push(block_CN):
                yield waiting.take(after_CN.shape[1]), after_CN
        for after_CN in chunks.finish():
            assert waiting is not None
            yield waiting.take(after_CN.shape[1]), after_CN

    def pitch_change(self, x_CN: Tensor, sample_rate: int, edits: SiteEdits, start_s: float) -> float:
        """The most that edits move the pitch of a sound, in semitones; 0 for a codec without a pitch coordinate."""
        if self.codec.pitch is None:
            return 0.0
        _, z_BTD = self.latent(x_CN, sample_rate, Manner("drop"), start_s)
        with torch.no_grad(), at_time(start_s):
            # as where every gate is open: this is the most
            always = {site: [edit.conditional(None) for edit in some] for site, some in edits.items()}
            changes = self.steered.changes(always) if edits else {}
            moved_BTD = changes["latent"](z_BTD) if "latent" in changes else z_BTD
        return float((self.codec.pitch(moved_BTD) - self.codec.pitch(z_BTD)).abs().max())

    def latent(self, x_CN: Tensor, sample_rate: int, manner: Manner, start_s: float) -> tuple[Tensor, Tensor]:
        """(what the codec is given of a sound, at its rate, [C, N], and its latent [C, T, D])."""
        passage = Passage(self, sample_rate, {}, manner, start_s, None, None)
        known = passage.known(x_CN, start_s)
        passage.encoded(known, start_s)
        assert known.latent_BTD is not None
        return known.codec_CN, known.latent_BTD

    def round_trip(self, blocks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
        """Blocks [C, n] as the codec gives them back without an edit."""
        return (after_CN for _, after_CN in self.render(blocks, sample_rate, {}, Manner("drop")))


class Passage:
    """What becomes of the chunks of one recording."""

    def __init__(
        self,
        renderer: Renderer,
        sample_rate: int,
        edits: SiteEdits,
        manner: Manner,
        start_s: float,
        memory: Memory | None,
        planned: Planned | None,
    ) -> None:
        self.renderer, self.codec, self.rate = renderer, renderer.codec, renderer.rate
        self.sample_rate, self.edits, self.manner, self.start_s = sample_rate, edits, manner, start_s
        self.memory, self.planned = memory, planned
        self.every = [edit for some in edits.values() for edit in some]
        self.carried: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        sites = {*edits, *(edit.when.site for edit in self.every if edit.when)}
        self.reuses = self.codec.channels == 1 and all(map(self.codec.decode_passes, sites))

    def __call__(self, x_CN: Tensor, chunk_s: float) -> Tensor:
        at_s, manner = self.start_s + chunk_s, self.manner
        end_s = at_s + x_CN.shape[1] / self.sample_rate
        edited = self.planned is not None or any(meets(edit, at_s, end_s) for edit in self.every)
        inside = manner.spans is None or overlaps(manner.spans, at_s, end_s)
        if not inside or not (edited or manner.residual == "drop"):
            return x_CN
        y_CN = self.changed(x_CN, at_s, edited)
        if not torch.isfinite(y_CN).all():
            raise EditError(f"the edit makes the sound overflow near {at_s:.1f} s: use smaller values")
        if manner.limit:
            y_CN, turned_down_db = limited(y_CN, self.sample_rate)
            self.renderer.turned_down_db = max(self.renderer.turned_down_db, turned_down_db)
        if manner.spans is None:
            return y_CN
        share_N = inside_share(manner.spans, at_s, x_CN.shape[1], self.sample_rate)
        # where the share is 0 this is the input to the bit
        return torch.where(share_N > 0, x_CN + share_N * (y_CN - x_CN), x_CN)

    def changed(self, x_CN: Tensor, at_s: float, edited: bool) -> Tensor:
        known = self.known(x_CN, at_s)
        plain_CN = self.plain(known, at_s)
        edited_CN = self.output(known, at_s) if edited else plain_CN
        count, residual, rate = x_CN.shape[1], self.manner.residual, self.sample_rate
        if residual == "keep":
            return x_CN + fitted(edited_CN - plain_CN, self.rate, rate, count)
        beyond = rate > self.rate
        if residual == "drop" and not beyond:
            return fitted(edited_CN, self.rate, rate, count).to(x_CN.dtype).expand(len(x_CN), -1)
        plain_CFT = known.once("plain", lambda: spectrum(plain_CN, self.rate))
        sound_CFT = known.once("sound", lambda: spectrum(x_CN, rate))
        codec_CFT = None
        if residual == "drop" or self.manner.moves_pitch:
            codec_CFT = spectrum(fitted(edited_CN, self.rate, rate, count), rate)
        if residual == "ratio":
            gain = change_of(plain_CFT, spectrum(edited_CN, self.rate), self.rate)
            kept_CFT = amplified(sound_CFT, gain, rate)
            if codec_CFT is None:
                return inverse(kept_CFT, rate, count).to(x_CN.dtype)
            envelope = known.once("envelope", lambda: self.envelope(x_CN, plain_CFT))
            pitched_T = self.pitched(known, at_s, rate, sound_CFT.shape[2])
            if edited:
                self.renderer.note_power(sound_CFT, pitched_T)
            codec_CFT = amplified(codec_CFT, envelope, rate) * pitched_T.sqrt() + kept_CFT * (1 - pitched_T).sqrt()
        assert codec_CFT is not None
        if beyond:
            codec_CFT = crossed(codec_CFT, sound_CFT, self.manner.above_db, rate, self.rate)
        return inverse(codec_CFT, rate, count).to(x_CN.dtype).expand(len(x_CN), -1)

    def pitched(self, known: Known, at_s: float, sample_rate: int, frames: int) -> Tensor:
        """How much of the codec's output is wanted where the pitch moves, [C, 1, T] from 0 to 1: all of it where the
        sound has a pitch."""
        if self.codec.voicing is None:
            return torch.ones(1, 1, frames)
        self.encoded(known, at_s)
        assert known.latent_BTD is not None
        voicing_CT = self.codec.voicing(known.latent_BTD).float().cpu()
        # a fricative's neighbours in time belong to its vowels
        voicing_CT = torch.nn.functional.max_pool1d(voicing_CT, 3, 1, 1)
        _, seconds_T = grid(sample_rate, frames)
        place_T = (seconds_T * self.codec.frame_rate - 0.5).clamp(0, voicing_CT.shape[1] - 1)
        share_CT = ((between(voicing_CT, place_T, 1) - UNPITCHED) / (PITCHED - UNPITCHED)).clamp(0, 1)
        return share_CT[:, None]

    def envelope(self, x_CN: Tensor, plain_CFT: Tensor) -> Gain:
        """What the plain round trip misses of the input's envelope."""
        narrow_CN = fitted(x_CN, self.sample_rate, self.rate)
        sound_CFT = spectrum(narrow_CN, self.rate)
        frames = min(sound_CFT.shape[2], plain_CFT.shape[2])
        return envelope_of(sound_CFT[..., :frames], plain_CFT[..., :frames], self.rate)

    # --- through the codec ---

    def known(self, x_CN: Tensor, at_s: float) -> Known:
        key = (at_s, x_CN.shape[1])
        if self.memory is not None and key in self.memory:
            return self.memory[key]
        sound_CN = x_CN.mean(0, keepdim=True) if self.manner.linked else x_CN
        known = Known(fitted(sound_CN, self.sample_rate, self.rate))
        if self.memory is not None:
            self.memory[key] = known
        return known

    def plain(self, known: Known, at_s: float) -> Tensor:
        if known.plain_CN is None:
            known.plain_CN = self.passed(known, at_s, {}, self.carried[0])
        return known.plain_CN

    def output(self, known: Known, at_s: float) -> Tensor:
        edits = dict(self.edits)
        if self.planned is not None:
            self.encoded(known, at_s)
            assert known.latent_BTD is not None
            for site, some in self.planned(known.latent_BTD, known.codec_CN, at_s).items():
                edits[site] = [*some, *edits.get(site, [])]
        return self.passed(known, at_s, edits, self.carried[1])

    def passed(self, known: Known, at_s: float, edits: SiteEdits, carry: dict[str, Any]) -> Tensor:
        with torch.no_grad(), self.renderer.steered.edit(edits):
            if not self.reuses:
                return round_trip(self.codec, known.codec_CN, at_s, carry)
            self.encoded(known, at_s)
            with at_time(at_s, carry):
                output_BCN = self.codec.decode(known.latent_BTD)  # type: ignore[arg-type]
        return output_BCN.float().cpu()[:, 0, : known.codec_CN.shape[1]]

    def encoded(self, known: Known, at_s: float) -> None:
        if known.latent_BTD is None:
            with torch.no_grad(), at_time(at_s):
                rows = known.codec_CN[:, None].to(self.codec.device, self.codec.dtype)
                known.latent_BTD = self.codec.encode(rows)


def meets(edit: Edit, start_s: float, end_s: float) -> bool:
    """Whether an edit does something between two times."""
    return edit.during is None or overlaps(edit.during, start_s, end_s)  # type: ignore[arg-type]


def overlaps(spans: Sequence[Span], start_s: float, end_s: float) -> bool:
    return any(start < end_s and end > start_s for start, end in spans)


def inside_share(spans: Sequence[Span], start_s: float, count: int, sample_rate: int) -> Tensor:
    """1 inside the spans and 0 outside, [count], with a cross-fade of `EDGE_S` within each span's ends."""
    seconds_N = start_s + torch.arange(count, dtype=torch.float64) / sample_rate
    share_N = torch.zeros(count, dtype=torch.float64)
    for start, end in spans:
        edge = min(EDGE_S, (end - start) / 2)
        depth_N = torch.minimum(seconds_N - start, end - seconds_N) / edge
        share_N = torch.maximum(share_N, depth_N.clamp(0, 1))
    return 0.5 - 0.5 * torch.cos(torch.pi * share_N)
