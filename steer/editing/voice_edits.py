"""`VoiceEdits`: from what a `Voice` asks for to control vectors with strengths over time, chunk by chunk."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from hooks.model import Codec
from steer.editing.formants import as_shifts, change_of_latent
from steer.editing.voice_tracks import curve_of, wanted
from steer.edits import Edit, Shift
from steer.errors import EditError
from steer.frame_labels import loudness_db
from steer.sae import SAE, EncodesAndDecodes
from steer.values import Span
from steer.vectors import ControlVector
from steer.voice import Voice

VOICED = 0.5
"""Probability of voice from which a frame has a pitch."""
FORMANT_SITE = "latent"
REMEMBERED = 8
"""Chunks whose moved formants are kept for further trials."""
GATE_DB = 40.0
"""Frames further below the loudest one are not counted in the median."""
Passage = tuple[Tensor, Tensor, slice]
"""The latent [C, T, D] of a part of the recording, its sound [C, N] at the codec's rate, and the frames that count."""


def check_voice(voice: Voice, codec: Codec, saes: Container[str], name: str) -> None:
    """Raises EditError for a codec whose latent has no pitch on a coordinate, or without an SAE for formants."""
    if codec.pitch is None or codec.voicing is None:
        raise EditError(
            f"voice: {name} has no pitch to set; it needs a codec with a pitch coordinate, such as starter:codec"
        )
    if voice.formants is not None and FORMANT_SITE not in saes:
        raise EditError(f"voice.formants: there is no SAE at {FORMANT_SITE!r}, which they need")


def formant_sae(saes: Mapping[str, EncodesAndDecodes], alone: bool) -> SAE:
    """The SAE that moves formants, of a sound that goes through the codec `alone`, as one channel.

    Raises:
        EditError: there are several channels, or the SAE is of another library.
    """
    found = saes[FORMANT_SITE]
    if not isinstance(found, SAE):
        raise EditError(f"voice.formants: the SAE at {FORMANT_SITE!r} is not a steer.SAE, which they need")
    if not alone:
        raise EditError("voice.formants: the channels are separate sounds; edit each channel as a file of its own")
    return found


class VoiceEdits:
    """Makes the edits of each chunk of one recording from its latent: call it as `steer.editing.render.Planned`.

    `vectors` are the control vectors that it takes, `sae` is that at `latent`, which moved formants need.

    `passages` are what is read of the recording beforehand: from them come its median pitch and, where several
    channels go through the codec by themselves, the channel whose pitch counts (the loudest voiced one).

    Raises:
        EditError: a note is asked for, and nothing is voiced.
    """

    def __init__(
        self,
        voice: Voice,
        codec: Codec,
        vectors: Mapping[str, ControlVector],
        sae: SAE | None,
        during: Sequence[Span] | None,
        passages: Iterable[Passage],
    ) -> None:
        self.voice, self.codec, self.vectors, self.sae, self.during = voice, codec, vectors, sae, during
        self._moved: dict[tuple[float, int], list[Edit]] = {}
        self.row, self.median = self._read(list(passages))
        if voice.note is not None and self.median is None:
            raise EditError(
                "it has no pitch to move to a note: nothing of what is edited is voiced; leave the note out"
            )

    def __call__(self, z_CTD: Tensor, audio_CN: Tensor, start_s: float) -> dict[str, list[Edit]]:
        assert self.codec.pitch is not None and self.codec.voicing is not None
        z_TD = z_CTD[min(self.row, len(z_CTD) - 1)].detach().cpu().double()
        time_T = start_s + (torch.arange(len(z_TD), dtype=torch.float64) + 0.5) / self.codec.frame_rate
        midi_T, voicing_T = self.codec.pitch(z_TD[None])[0], self.codec.voicing(z_TD[None])[0]
        edits: dict[str, list[Edit]] = {}

        def add(name: str, strength_T: Tensor) -> None:
            vector = self.vectors[name]
            shift = Shift(vector.vector, curve_of(strength_T, time_T), during=self.during)
            edits.setdefault(vector.site, []).append(shift)

        if self.voice.moves_pitch:
            wanted_T = wanted(self.voice, midi_T, voicing_T > VOICED, time_T, self.median)
            add("pitch", wanted_T - midi_T)
        if self.voice.whisper:
            add("whisper", self.voice.whisper * voicing_T)
        if self.voice.formants:
            edits.setdefault(FORMANT_SITE, []).extend(self._formants(z_CTD, audio_CN, start_s, time_T))
        return edits

    def _formants(self, z_CTD: Tensor, audio_CN: Tensor, start_s: float, time_T: Tensor) -> list[Edit]:
        assert self.voice.formants is not None and self.sae is not None
        key = (start_s, len(time_T))
        if key not in self._moved:
            if len(self._moved) >= REMEMBERED:
                self._moved.clear()
            change_CTD = change_of_latent(self.codec, z_CTD, audio_CN, self.voice.formants, start_s)
            scale_CT1 = self.sae.normalized(z_CTD)[1]  # features of an SAE that normalises count by frame
            if scale_CT1 is not None:
                change_CTD = change_CTD / scale_CT1
            self._moved[key] = [*as_shifts(change_CTD[0], self.sae.W_dec, time_T, self.during)]
        return self._moved[key]

    def _read(self, passages: Sequence[Passage]) -> tuple[int, float | None]:
        """(the channel whose pitch counts, the median of its pitch)."""
        assert self.codec.pitch is not None and self.codec.voicing is not None
        assert self.codec.sample_rate is not None
        pitches, voices, levels = [], [], []
        for z_CTD, audio_CN, inner in passages:
            z_CTD = z_CTD.detach().cpu()
            frames = z_CTD.shape[1]
            pitches.append(self.codec.pitch(z_CTD)[:, inner])
            voices.append(self.codec.voicing(z_CTD)[:, inner] > VOICED)
            rows = [loudness_db(x_N, self.codec.sample_rate, self.codec.frame_rate, frames) for x_N in audio_CN]
            levels.append(torch.stack(rows)[:, inner])
        if not pitches:
            return 0, None
        midi_CT, voiced_CT, level_CT = (torch.cat(some, dim=1) for some in (pitches, voices, levels))
        if not midi_CT.shape[1]:
            return 0, None
        power_CT = (10 ** (level_CT / 10)).masked_fill(~voiced_CT, 0.0)
        row = int(power_CT.sum(1).argmax())
        counted_T = voiced_CT[row] & (level_CT[row] > level_CT[row].max() - GATE_DB)
        return row, float(midi_CT[row][counted_T].median()) if counted_T.any() else None
