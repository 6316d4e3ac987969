"""Control vectors for a codec's latent, found in three ways, all in feature space and in the same unit.

`pairs`: the least-squares slope of features over the amount of change, from sounds that differ in one attribute only.
`probe`: the slope of a probe's class weights. `lstsq`: a direction of the latent that is known (a coordinate, or what
the training taught the decoder), brought to the SAE's features by least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.evaluators.vectors import measured, moved, start_of
from hooks import Clip
from hooks.families.source_filter import SourceFilterCodec
from hooks.model import Codec
from hooks.networks.source_filter import MIDI_STEP
from steer.acoustics import measure
from steer.frame_labels import centroid_hz, loudness_db
from steer.probes import Probe
from steer.sae import SAE
from steer.steered import SteeredModel
from steer.vectors import ControlVector, from_direction, from_pairs
from training.pitched import Batches
from training.source_filter_losses import LENGTHS, UNITS, tilt
from training.whisper_direction import whisper_direction

SITE = "latent"
Segment = tuple[Tensor, Tensor]
"""A waveform [N] and its pitch [T] in MIDI notes, NaN where it has none."""
Reading = Callable[[Tensor], Tensor]
TEXTS = {
    "loudness": "1 dB louder",
    "brightness": "1 % brighter",
    "pitch": "1 semitone higher",
    "voicing": "1 on the voicing axis, whose sigmoid(2 x) is the probability of voice",
    "whisper": "a full whisper, times the probability of voice",
}
VOICED = 0.5
"""Confidence of a label from which a frame counts as voiced, and the share of such frames in a segment with a pitch."""
TRIALS = {"loudness": (-6.0, 6.0), "brightness": (-25.0, 30.0), "pitch": (-5.0, 5.0)}
"""Strengths that choose the best way."""
WEIGHTS = {"loudness": 1.0, "brightness": 0.1, "pitch": 2.0}
"""What an error of 1 dB, 1 % and 1 semitone counts in that choice."""


@torch.no_grad()
def latents(codec: Codec, waveform_N: Tensor) -> Tensor:
    """Latent frames [T, D] of a mono waveform."""
    return codec.encode(waveform_N[None, None])[0]


@torch.no_grad()
def sound_of(codec: Codec, z_TD: Tensor) -> Tensor:
    """The waveform [N] of latent frames."""
    return codec.decode(z_TD[None])[0, 0]


def log_centroid(codec: Codec, waveform_N: Tensor) -> Tensor:
    """100 ln of the spectral centroid of each frame: a difference of 1 is (about) 1 %."""
    assert codec.sample_rate is not None
    frames = len(waveform_N) // codec.hop_length
    return 100 * centroid_hz(waveform_N, codec.sample_rate, codec.frame_rate, frames).log()


def level(codec: Codec, waveform_N: Tensor) -> Tensor:
    assert codec.sample_rate is not None
    return loudness_db(waveform_N, codec.sample_rate, codec.frame_rate, len(waveform_N) // codec.hop_length)


def drawn(batches: Batches, count: int, pitched: bool = False) -> list[Segment]:
    """So many segments; with `pitched` only those that are voiced for the most part."""
    found: list[Segment] = []
    while len(found) < count:
        x_BN, midi_BT, confidence_BT = batches.draw()
        midi_BT = midi_BT.masked_fill(confidence_BT < VOICED, torch.nan)
        share_B = midi_BT.isfinite().float().mean(1)
        loud_B = x_BN.abs().amax(1) > 0.01
        keep_B = loud_B & (share_B > VOICED) if pitched else loud_B
        found += [(x_BN[i], midi_BT[i]) for i in keep_B.nonzero()[:, 0]]
    return found[:count]


# --- pairs ---


def loudness_pairs(codec: Codec, sae: SAE, segments: list[Segment]) -> Iterator[tuple[Tensor, Tensor, float]]:
    for x_N, _ in segments:
        change = float(torch.empty(()).uniform_(-9, 6))
        before, after = (sae.encode(latents(codec, wave)) for wave in (x_N, x_N * 10 ** (change / 20)))
        yield before, after, change


def brightness_pairs(codec: Codec, sae: SAE, segments: list[Segment]) -> Iterator[tuple[Tensor, Tensor, float]]:
    assert codec.sample_rate is not None
    for x_N, _ in segments:
        y_N = tilt(x_N[None], torch.empty(1).uniform_(-4, 4), codec.sample_rate)[0]
        change = (log_centroid(codec, y_N) - log_centroid(codec, x_N)).nanmean()
        if change.isfinite():
            yield sae.encode(latents(codec, x_N)), sae.encode(latents(codec, y_N)), float(change)


def pitch_pairs(
    codec: Codec, sae: SAE, segments: list[Segment], mover: SourceFilterCodec
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """The output of a source-filter codec, encoded again, with its pitch as it was and moved."""
    for x_N, midi_T in segments:
        voiced_T, z_TD = midi_T.isfinite(), latents(mover, x_N)
        change = float(torch.empty(()).uniform_(2, 6)) * (1 if torch.rand(()) < 0.5 else -1)
        waves = [sound_of(mover, z_TD + amount * pitch_direction(mover)) for amount in (0.0, change)]
        before, after = (sae.encode(latents(codec, wave)[voiced_T]) for wave in waves)
        yield before, after, change


# --- known directions of a source-filter codec ---


def pitch_direction(codec: SourceFilterCodec) -> Tensor:
    """A semitone [D]."""
    return F.one_hot(torch.tensor(0), codec.module.config.dimension) / MIDI_STEP


def taught_directions(codec: SourceFilterCodec) -> tuple[Tensor, Tensor]:
    """1 dB of level, and 1 dB per octave of tilt, as the training taught them to the decoder [D]."""
    per_unit = torch.tensor(LENGTHS) / torch.tensor(UNITS)
    free = F.normalize(codec.module.directions.detach(), dim=1) * per_unit[:, None]
    louder_D, brighter_D = F.pad(free, (2, 0))
    return louder_D, brighter_D


# --- units ---


@torch.no_grad()
def in_units(
    codec: Codec, sae: SAE, vector: ControlVector, reading: Reading, segments: list[Segment], length: float = 1.0
) -> ControlVector:
    """The vector scaled such that on the median segment +1 changes what is read of the output [frames] by 1, for moves
    of so much `length` in the latent to either side.

    Pairs and probes tell how features differ, not how far the decoder goes when they are moved.
    """
    direction_D = vector.vector @ sae.W_dec
    step = length / float(direction_D.norm())
    ratios = []
    for x_N, _ in segments:
        z_TD = latents(codec, x_N)
        lower, higher = (reading(sound_of(codec, z_TD + sign * step * direction_D)) for sign in (-1, 1))
        ratios.append((higher - lower).nanmedian() / (2 * step))
    return replace(vector, vector=vector.vector / float(torch.stack(ratios).nanmedian()))


def in_semitones(sae: SAE, vector: ControlVector) -> ControlVector:
    """The vector scaled such that +1 is a semitone on the pitch coordinate."""
    return replace(vector, vector=vector.vector / (MIDI_STEP * float(vector.vector @ sae.W_dec[:, 0])))


# --- all ways ---


def found_ways(
    codec: Codec,
    sae: SAE,
    probes: Mapping[str, Probe],
    batches: Batches,
    count: int,
    mover: SourceFilterCodec | None = None,
) -> dict[str, dict[str, ControlVector]]:
    """{attribute: {way: vector}}. Pitch needs a source-filter codec: this one, or a `mover` that makes the pairs."""
    own = codec if isinstance(codec, SourceFilterCodec) else None
    segments, pitched = drawn(batches, count), drawn(batches, count, pitched=True)
    louder: dict[str, ControlVector] = {"pairs": from_pairs(loudness_pairs(codec, sae, segments))}
    brighter: dict[str, ControlVector] = {"pairs": from_pairs(brightness_pairs(codec, sae, segments))}
    higher: dict[str, ControlVector] = {}
    if own or mover:
        higher["pairs"] = from_pairs(pitch_pairs(codec, sae, pitched, own or mover))  # type: ignore[arg-type]
    louder["probe"], brighter["probe"] = probes["loudness"].slope(), probes["brightness"].slope()
    ways = {"loudness": louder, "brightness": brighter, "pitch": higher}
    if own:
        for vectors, direction_D in zip((louder, brighter), taught_directions(own), strict=True):
            vectors["lstsq"] = from_direction(direction_D, sae.W_dec)
        higher |= {"lstsq": from_direction(pitch_direction(own), sae.W_dec), "probe": probes["pitch"].slope()}
        higher |= {way: in_semitones(sae, vector) for way, vector in higher.items()}
        voicing_D = F.one_hot(torch.tensor(1), own.module.config.dimension).float()
        ways["voicing"] = {"lstsq": from_direction(voicing_D, sae.W_dec)}
        whispering_D = whisper_direction(own, [latents(own, x_N) for x_N, _ in pitched])
        ways["whisper"] = {"lstsq": from_direction(whispering_D, sae.W_dec)}
    for vectors, reading in ((louder, level), (brighter, log_centroid)):
        for way, vector in vectors.items():
            vectors[way] = in_units(codec, sae, vector, partial(reading, codec), segments[:100])
    return {
        attribute: {
            way: ControlVector(vector.vector, f"{attribute}-{way}", TEXTS[attribute], SITE)
            for way, vector in vectors.items()
        }
        for attribute, vectors in ways.items()
        if vectors
    }


def off_by(steered: SteeredModel, vector: ControlVector, attribute: str, clips: Iterable[Clip]) -> float:
    """Mean error of edits along a vector on clips, and what else they change, against the clips themselves; each
    attribute in its weight."""
    assert steered.model.sample_rate is not None
    errors = []
    for clip in clips:
        audio_BCN = start_of(steered, clip, 2.0)
        pitch = attribute == "pitch"
        before = measure(audio_BCN[0], steered.model.sample_rate, pitch=pitch, lufs=False)
        for strength, sound_CN in zip(
            TRIALS[attribute], moved(steered, audio_BCN, vector, SITE, TRIALS[attribute]), strict=True
        ):
            changes = measured(steered, before, sound_CN, pitch)
            wanted = dict.fromkeys(changes, 0.0) | {attribute: strength}
            errors.append(sum(WEIGHTS[k] * abs(v - wanted[k]) for k, v in changes.items() if v is not None))
    return sum(errors) / max(1, len(errors))


def chosen(
    ways: Mapping[str, Mapping[str, ControlVector]], steered: SteeredModel, clips: list[Clip]
) -> tuple[dict[str, ControlVector], dict[str, float]]:
    """The vectors as they ship, the best way of each attribute under its own name and the others as `pitch-pairs`; and
    how far each is off on the clips."""
    ship: dict[str, ControlVector] = {}
    scores: dict[str, float] = {}
    for attribute, vectors in ways.items():
        if attribute in TRIALS and len(vectors) > 1:
            off = {way: off_by(steered, vector, attribute, clips) for way, vector in vectors.items()}
            scores |= {vectors[way].name: round(value, 3) for way, value in off.items()}
        else:
            off = dict.fromkeys(vectors, 0.0)
        best = min(off, key=lambda way: off[way])
        ship[attribute] = vectors[best]
        ship |= {vector.name: vector for way, vector in vectors.items() if way != best}
    return ship, scores


__all__ = ["chosen", "drawn", "found_ways", "latents"]
