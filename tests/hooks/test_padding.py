from __future__ import annotations

import threading

import pytest

from hooks.attach import at_time
from hooks.padding import frames_in, real_frames, sound_until


def test_every_frame_that_holds_any_sound_counts() -> None:
    # 0.001 s of sound is in the first frame; 1.1 * 50 is a little more than 55 in floating point
    assert [frames_in(seconds, 50.0) for seconds in (0.0, 0.001, 0.02, 1.0, 1.001, 1.1)] == [0, 1, 1, 50, 51, 55]


def test_the_end_of_the_sound_is_in_seconds_of_the_recording() -> None:
    with sound_until(65.0):
        assert real_frames(1500, 50.0) == 1500
        with at_time(60.0):
            assert real_frames(1500, 50.0) == 250
            # a window that ends before the sound does
            assert real_frames(100, 50.0) == 100
        with at_time(70.0):
            assert real_frames(1500, 50.0) == 0


def test_nobody_said() -> None:
    assert real_frames(1500, 50.0) == 1500
    with at_time(10.0):
        assert real_frames(1500, 50.0) == 1500
    with sound_until(1.0):
        assert real_frames(7, None) == 7


def test_it_ends_with_the_block_also_after_an_error_and_is_not_seen_elsewhere() -> None:
    seen: list[int] = []
    with pytest.raises(ArithmeticError), sound_until(1.0):
        thread = threading.Thread(target=lambda: seen.append(real_frames(1500, 50.0)))
        thread.start()
        thread.join()
        seen.append(real_frames(1500, 50.0))
        raise ArithmeticError
    assert [*seen, real_frames(1500, 50.0)] == [1500, 50, 1500]
