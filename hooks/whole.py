"""`Whole`: the recording of which a model gets a part at a time.

`run` of every model says which recording each row of its batch is, and so do the transcripts of a Whisper. What has to
know all of a recording before the model has got there (a gate that decides by clip) passes it once beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from hooks.timing import now, saying


@dataclass(eq=False)
class Whole:
    """A recording from `start_s` to `end_s` seconds; `again` passes all of it through the model once, in its windows.

    `end_s` and `again` are None where nobody knows the end yet, as in a stream. `found` keeps what was found out about
    the recording in passes of its own, for as long as it is worked on.
    """

    start_s: float = 0.0
    end_s: float | None = None
    again: Callable[[], object] | None = None
    found: dict[Hashable, Any] = field(default_factory=dict)


def whole_sounds(
    audio_BCN: Tensor, sample_rate: int, run: Callable[[Tensor], object], start_s: float = 0.0
) -> tuple[Whole, ...]:
    """A `Whole` for each row of the batch, which `run` passes through the model."""
    end_s = start_s + audio_BCN.shape[-1] / sample_rate
    return tuple(Whole(start_s, end_s, partial(run, audio_BCN[row : row + 1])) for row in range(len(audio_BCN)))


@contextmanager
def taken_whole(audio_BCN: Tensor, sample_rate: int | None, run: Callable[[Tensor], object]) -> Iterator[None]:
    """Say inside that the rows are whole recordings, unless somebody has said what they are, or when they start."""
    moment = now()
    if moment.wholes is not None or moment.start_s is not None or sample_rate is None:
        yield
        return
    with saying(wholes=whole_sounds(audio_BCN, sample_rate, run)):
        yield
