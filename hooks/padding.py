"""Padding: where a model's window is longer than the sound, the rest is filled, and what comes of that is not a sound.

A family says where the sound ends (`sound_until`, beside `at_time`, which says where a window starts); whoever looks at
activations asks how many of the frames hold sound (`real_frames`).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

from hooks.timing import now, saying


def sound_until(seconds: float) -> AbstractContextManager[None]:
    """Say that the sound that the model gets inside this block ends at `seconds` of the whole recording."""
    return saying(end_s=seconds)


def real_frames(frames: int, frame_rate: float | None) -> int:
    """How many of the `frames` of the present call hold sound; all of them where nobody said, or without a rate."""
    moment = now()
    if moment.end_s is None or frame_rate is None:
        return frames
    return max(0, min(frames, frames_in(moment.end_s - (moment.start_s or 0.0), frame_rate)))


def frames_in(seconds: float, frame_rate: float) -> int:
    """Number of frames that hold any of a sound of that length."""
    # 1.1 s * 50 Hz is 55.00000000000001
    return math.ceil(seconds * frame_rate - 1e-6)
