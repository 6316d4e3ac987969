"""`Manner`: how an edit of a codec's features reaches the sound, and which manner is meant for a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hooks.model import Codec
from steer.editing.outcome import Excerpts
from steer.edits import Edit
from steer.recipe import Recipe
from steer.values import Span, as_spans

Residual = Literal["keep", "drop", "ratio"]
COHERENT = 0.8
"""Correlation with their mean above which channels are one source, whose pitch is moved for all of them together: two
unrelated ones of equal level are at 0.71, and those that correlate by 0.3 at 0.81."""
PITCH_MOVED = 0.05
"""Semitones."""


@dataclass(frozen=True)
class Manner:
    """How an edit of the codec's features reaches the sound.

    `keep` adds the difference of the edited and the plain round trip to the input. `ratio` transfers it to the input as
    a gain (`steer.editing.transfer`), or with `moves_pitch` gives the codec's output the input's envelope; frames that
    have no pitch to move still are the input with a gain. `drop` is the codec's output. Above the codec's band the
    input stays, in the last two cases changed by `above_db`.

    Outside `spans` (seconds; None: everywhere is inside) the output is the input, bit for bit. `linked` channels share
    one pitch: the codec is given their mean. `limit` turns true peaks above full scale down.
    """

    residual: Residual
    moves_pitch: bool = False
    spans: Sequence[Span] | None = None
    limit: bool = False
    above_db: float = 0.0
    linked: bool = False


def manner_for(
    recipe: Recipe,
    codec: Codec,
    excerpts: Excerpts,
    edits: Mapping[str, Sequence[Edit]],
    pitch_change: Callable[[Tensor, int, Mapping[str, Sequence[Edit]], float], float],
) -> Manner:
    """How the edits of a recipe reach a file; `pitch_change` is `Renderer.pitch_change`."""
    goals, stretches = bool(recipe.wanted) or recipe.voice.active, excerpts.stretches
    residual = recipe.residual or ("ratio" if goals or not codec.keeps_phase else "keep")
    every = [edit for some in edits.values() for edit in some]
    spans: list[Span] | None = recipe.during
    if every:
        timed = [as_spans(edit.during) for edit in every]
        timed += [as_spans(recipe.during)] if recipe.voice.active else []
        spans = sorted({span for some in timed for span in some or ()}) if None not in timed else None
    moves_pitch = (
        "pitch" in recipe.wanted
        or recipe.voice.active
        or any(
            pitch_change(stretch.samples, excerpts.info.sample_rate, edits, stretch.start_s) > PITCH_MOVED
            for stretch in (stretches if every and residual == "ratio" and not goals else ())
        )
    )
    return Manner(
        residual,
        moves_pitch,
        spans,
        limit=recipe.limit and excerpts.has_full_scale,
        above_db=recipe.wanted.get("loudness", 0.0),
        linked=moves_pitch and codec.channels == 1 and coherent([one.samples for one in stretches]),
    )


def coherent(parts: Sequence[Tensor]) -> bool:
    """Whether the channels of a sound [C, n] are near their mean, so that one pitch is that of all."""
    if not parts or parts[0].shape[0] < 2:
        return False
    x_CN = torch.cat(list(parts), dim=1)
    mean_N = x_CN.mean(0)
    norms_C = x_CN.norm(dim=1)
    sounding_C = norms_C > 0.1 * norms_C.max()
    correlation_C = (x_CN @ mean_N) / (norms_C * mean_N.norm()).clamp(min=1e-9)
    return bool((correlation_C[sounding_C] > COHERENT).all())
