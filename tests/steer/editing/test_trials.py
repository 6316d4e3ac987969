"""Trials of strengths on stretches of a file, with a rendering of which all is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from steer.acoustics import Acoustics
from steer.editing.excerpts import Stretch
from steer.editing.manner import Manner
from steer.editing.trials import Trials
from steer.errors import EditError
from steer.recipe import Recipe
from tests.tiny_codec import tones

RATE = 24_000
NAMES = ["loudness", "brightness"]


class Amplifier:
    """Makes a sound louder by 0.8 dB for each dB of strength, and up to `most` dB; notes what it was asked."""

    def __init__(self, most: float = 100.0) -> None:
        self.most, self.manners, self.count = most, [], 0
        self.manners: list[Manner]

    def edits_for(self, strengths: Mapping[str, float]) -> Any:
        return dict(strengths)

    def __call__(
        self, blocks: Iterable[Tensor], rate: int, edits: Any, manner: Manner, *others: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        self.manners.append(manner)
        self.count += 1
        gain = 10 ** (min(self.most, 0.8 * edits.get("loudness", 0.0)) / 20)
        return ((block_CN, gain * block_CN) for block_CN in blocks)


def trials(
    amplifier: Amplifier, goals: dict[str, Any], channels: int = 1, pitch: bool = False, **options: Any
) -> Trials:
    recipe = Recipe.build({"model": "m", "saes": {"latent": "s"}, "goals": goals})
    samples = torch.from_numpy(tones(1.0, RATE, channels).T.copy())
    stretches = [Stretch(0.0, samples, slice(0, 9_000)), Stretch(5.0, samples, slice(12_000, 20_000))]
    manner = options.pop("manner", Manner("ratio", spans=[(0.0, 6.0)], limit=True))
    stretches = options.pop("stretches", stretches)
    return Trials(recipe, amplifier.edits_for, NAMES, amplifier, stretches, RATE, manner, pitch)


def test_the_stretches_are_measured_together() -> None:
    one = trials(Amplifier(), {})
    assert one.seconds == pytest.approx(17_000 / RATE)
    assert one.original.shape == (1, 17_000)
    changes = one.changes({"loudness": 5.0})
    assert changes["loudness"] == pytest.approx(4.0, abs=1e-4)
    assert changes["brightness"] == pytest.approx(0.0, abs=1e-3) and changes["pitch"] is None


@pytest.mark.parametrize("goal", [-6.0, 0.7, 3.0, 9.0])
def test_strengths_are_found_that_reach_the_goal(goal: float) -> None:
    one, counts = trials(Amplifier(), {"loudness": goal}), []
    strengths = one.search(counts.append)
    assert strengths["loudness"] == pytest.approx(goal / 0.8, abs=0.2)
    assert one.met(one.changes(strengths))
    assert counts == list(range(1, len(counts) + 1)) and len(counts) <= 4


def test_a_goal_out_of_reach_is_not_met() -> None:
    one = trials(Amplifier(most=2.0), {"loudness": 6})
    assert not one.met(one.changes(one.search(lambda count: None)))


def test_without_goals_nothing_is_tried() -> None:
    amplifier = Amplifier()
    assert trials(amplifier, {}).search(lambda count: None) == {} and amplifier.count == 0


def test_what_was_tried_is_not_tried_again() -> None:
    amplifier = Amplifier()
    one = trials(amplifier, {"loudness": 3})
    one.changes({"loudness": 1.0})
    one.edited({"loudness": 1.0})
    one.changes({"loudness": 1.0})
    assert amplifier.count == 2  # stretches
    one.changes({"loudness": 2.0})
    one.changes({"loudness": 1.0})
    assert amplifier.count == 4


def test_channels_are_measured_by_themselves() -> None:
    assert trials(Amplifier(), {}).channels({"loudness": 5.0}) == []
    channels = trials(Amplifier(), {}, 2).channels({"loudness": 5.0})
    assert [one["loudness"] for one in channels] == [pytest.approx(4.0, abs=1e-4)] * 2


def test_the_round_trip_is_the_codecs_output_alone() -> None:
    amplifier = Amplifier()
    changes = trials(amplifier, {}).against_round_trip({"loudness": 5.0})
    assert changes["loudness"] == pytest.approx(4.0, abs=1e-4)
    assert all(manner.residual == "drop" and not manner.limit and manner.spans is None for manner in amplifier.manners)


def test_what_is_written_is_clipped_where_the_file_cannot_hold_more() -> None:
    one = trials(Amplifier(), {})
    assert one.written({"loudness": 30.0}).abs().max() > 1
    one = trials(Amplifier(), {})
    one.full_scale = True
    assert one.written({"loudness": 30.0}).abs().max() == 1
    loudness = one.changes({"loudness": 30.0})["loudness"]
    assert loudness is not None and loudness < 23


def test_nothing_to_measure() -> None:
    one = trials(Amplifier(), {}, stretches=[])
    empty = {"loudness": None, "pitch": None, "brightness": None}
    assert one.changes({}) == empty and one.against_round_trip({}) == empty and one.seconds == 0


def test_a_pitch_goal_needs_a_pitch() -> None:
    pytest.importorskip("torchcrepe", reason="pitch is measured by torchcrepe")
    noise = 0.1 * torch.randn(1, RATE, dtype=torch.float64)
    one = trials(Amplifier(), {"pitch": 2}, pitch=True, stretches=[Stretch(0.0, noise, slice(0, RATE))])
    with pytest.raises(EditError, match="no pitch to move"):
        one.search(lambda count: None)


def test_a_misread_octave_is_settled_by_the_larger_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small network reads this voice an octave too high, and reads it right once it was moved."""

    class Mover(Amplifier):
        def __call__(self, blocks: Any, rate: int, edits: Any, *other: Any) -> Iterator[tuple[Tensor, Tensor]]:
            return ((block_CN, torch.full_like(block_CN, edits["pitch"])) for block_CN in blocks)

    readers = []

    def misreads(samples_CN: Tensor, rate: int, pitch: bool, lufs: bool, crepe: str, *other: Any) -> Acoustics:
        readers.append(crepe)
        moved = float(samples_CN[0, 0]) if samples_CN.std() == 0 else 0.0
        note = 38.0 + moved + (12.0 if crepe == "tiny" and moved == 0.0 else 0.0)
        return Acoustics(-20.0, None, 1000.0, note, 1.0, torch.full((20,), note))

    monkeypatch.setattr("steer.editing.trials.measure", misreads)
    one = trials(Mover(), {"pitch": "+4st"}, pitch=True)
    one.names = ["pitch"]
    assert one.search(lambda count: None)["pitch"] == pytest.approx(4.0)
    assert "tiny" in readers and readers[-1] == "full"
