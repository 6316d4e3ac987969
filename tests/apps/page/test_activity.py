"""With the recogniser whose axis 0 is how far a sound is above zero, axis 1 how far below, in 100 frames a second."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apps.page.activity import ROWS, SHOWN_S, Activity, Block, activity_of, blocks_of, draw
from apps.page.style import INK
from hooks import Clip, Transcriber, Transcript
from steer.edits import Ablate, Shift
from steer.recipe import Recipe
from steer.sae import SAE
from steer.steered import SteeredModel
from training.sounds import make_noise

RATE = 16_000


@pytest.fixture
def steered(listener: Transcriber) -> SteeredModel:
    """Feature i is axis i."""
    saes = {}
    for site in ("ear.0", "ear.1"):
        saes[site] = SAE(4, 4, "relu")
        saes[site].W_enc.data.copy_(torch.eye(4))
        saes[site].W_dec.data.copy_(torch.eye(4))
    return SteeredModel(listener, saes)


@pytest.fixture
def clip() -> Clip:
    """A second below zero, and one above, half as far."""
    return Clip(torch.cat([torch.full((RATE,), -0.5), torch.full((RATE,), 0.25)]), RATE)


def rows(activity: Activity) -> list[tuple[str, float, float]]:
    return [(row.name, round(row.mean, 4), row.peak) for row in activity.rows]


def said(*segments: tuple[float, float, str]) -> Transcript:
    text = "".join(text for _, _, text in segments).strip()
    return Transcript(text, [{"start": start, "end": end, "text": text} for start, end, text in segments])


def test_the_strongest_features_and_when(steered: SteeredModel, clip: Clip) -> None:
    activity = activity_of(steered, {}, clip)
    assert sorted(rows(activity)) == [
        ("ear.0 0", 0.125, 0.25), ("ear.0 1", 0.25, 0.5), ("ear.1 0", 0.125, 0.25), ("ear.1 1", 0.25, 0.5),
    ]  # fmt: skip
    assert [row.feature for row in activity.rows] == [1, 1, 0, 0] and not activity.edited
    first, second = activity.rows[0].values_C.chunk(2)
    assert (first == 0.5).all() and (second == 0).all()
    assert activity.peak_s(activity.rows[0]) < 1 < activity.peak_s(activity.rows[-1])
    assert "2.0 s of sound" in activity.told()
    assert "Most active features: ear.0 1 (highest at 0.0 s), ear.1 1" in activity.told()


def test_only_edited_features_where_there_are_edits_silent_ones_too(steered: SteeredModel, clip: Clip) -> None:
    activity = activity_of(steered, {"ear.1": [Ablate([3]), Shift(torch.tensor([2.0, 0, 0, 0]), 1.0)]}, clip)
    assert rows(activity) == [("ear.1 0", 0.125, 0.25), ("ear.1 3", 0.0, 0.0)]
    assert activity.told().endswith("Most active edited features: ear.1 0 (highest at 1.0 s).")


def test_of_a_long_sound_the_start(steered: SteeredModel) -> None:
    long = Clip(torch.cat([torch.full((round(SHOWN_S * RATE),), 0.1), torch.full((RATE,), -0.9)]), RATE)
    activity = activity_of(steered, {}, long)
    assert activity.clip.seconds == SHOWN_S and {row.feature for row in activity.rows} == {0}


def test_padding_is_left_out() -> None:
    pytest.importorskip("whisper", reason="extra whisper")
    steered = Recipe.build({"model": "starter:asr"}).open()
    noise = Clip(torch.from_numpy(make_noise(2.0, RATE, np.random.default_rng(0)).waveform), RATE)
    activity = activity_of(steered, {}, noise)
    features = steered.features(noise)
    assert len(activity.rows) == ROWS
    for row in activity.rows:
        f_T = features[row.site][0, :, row.feature]
        assert len(f_T) == 100  # of the 1500 frames of a window
        assert (row.mean, row.peak) == pytest.approx((float(f_T.mean()), float(f_T.max())), rel=1e-5)


# --- words ---

segment = st.tuples(st.floats(0, 40), st.floats(0, 10), st.integers(1, 300))


@given(st.lists(segment, max_size=8))
def test_words_do_not_stand_upon_each_other(spans: list[tuple[float, float, int]]) -> None:
    segments = [(start, start + length, " word" * (count // 5 + 1)) for start, length, count in sorted(spans)]
    blocks = blocks_of(said(*segments), 30.0)
    for one, other in combinations(blocks, 2):
        beside = one.right <= other.left or other.right <= one.left
        assert beside or one.bottom <= other.top or other.bottom <= one.top
    assert all(block.left >= 0 and 0 <= block.start_s <= block.end_s <= 30 for block in blocks)


def test_words_stand_at_their_times_and_have_the_room_up_to_the_next() -> None:
    early, late = blocks_of(said((0, 0.2, " one two three"), (9, 10, " end")), 10.0)
    assert (early.lines, early.start_s, early.left, early.top) == (("one two three",), 0, 0, 0)
    assert (late.lines, late.start_s, late.end_s, late.top) == (("end",), 9, 10, 0)
    (nothing,) = blocks_of(said((0, 5, "")), 10.0)
    assert nothing.lines == ("(nothing)",)
    (whole,) = blocks_of(Transcript("no segments are told"), 10.0)
    assert whole == Block(0.0, 10.0, ("no segments are told",), 0.0, 10.0, 0)


def test_the_picture_has_no_text_upon_text(steered: SteeredModel, clip: Clip) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    transcripts = {
        "baseline": said((0, 0.1, " MMMMMM"), (0.1, 0.9, " W" * 60), (0.9, 1, " $\\frac$ <b>"), (1, 2, " so " * 40)),
        "edited": Transcript(""),
    }
    figure = draw(activity_of(steered, {}, clip), transcripts)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels()) if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert len(texts) > 12
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    # the page is seen through the corners
    assert (np.asarray(canvas.buffer_rgba())[[0, -1], 0, 3] == 0).all()


def test_sounds_without_activity_are_drawn(steered: SteeredModel) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib")
    for sound in (torch.zeros(RATE), torch.zeros(400)):
        activity = activity_of(steered, {}, Clip(sound, RATE))
        assert activity.rows == () and activity.told().endswith("Most active features: none.")
        draw(activity, {"baseline": Transcript("")})


def test_text_can_be_read_on_white_and_on_dark() -> None:
    def luminance(color: str) -> float:
        """WCAG 2.2, relative luminance."""
        parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for page in ("#ffffff", "#0b0f19"):
        low, high = sorted((luminance(INK), luminance(page)))
        # no colour has more than 4.38 on both
        assert (high + 0.05) / (low + 0.05) > 4.3
