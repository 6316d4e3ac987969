"""How an edit reaches the sound, with a codec whose round trip is the input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from steer.editing.limiter import CEILING, true_peaks
from steer.editing.manner import Manner
from steer.editing.render import EDGE_S, Renderer, inside_share
from steer.errors import EditError
from tests.steer.editing.frames import Frames, louder, steered

RATES = [8_000, 11_025, 24_000, 44_100, 48_000]
SIX_DB = 20 * torch.log10(torch.tensor(2.0)).item()


def noise(rate: int, seconds: float = 1.5, channels: int = 1, level: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return level * torch.randn(channels, round(seconds * rate), generator=generator, dtype=torch.float64)


def rendered(x_CN: Tensor, rate: int, edits: Any, manner: Manner, chunk_s: float = 20.0, **options: Any) -> Tensor:
    renderer = options.pop("renderer", None) or Renderer(steered(), chunk_s)
    blocks = renderer.render([x_CN], rate, edits, manner, **options)
    pairs = list(blocks)
    assert torch.equal(torch.cat([before_CN for before_CN, _ in pairs], dim=1), x_CN)
    y_CN = torch.cat([after_CN for _, after_CN in pairs], dim=1)
    assert y_CN.shape == x_CN.shape and y_CN.dtype == torch.float64
    return y_CN


def level_db(x: Tensor) -> float:
    return float(10 * torch.log10(x.square().mean()))


def above(x_CN: Tensor, rate: int, hz: float) -> Tensor:
    """What lies above a frequency."""
    spectrum_CF = torch.fft.rfft(x_CN)
    spectrum_CF[:, : round(hz / rate * x_CN.shape[1])] = 0
    return torch.fft.irfft(spectrum_CF, x_CN.shape[1])


@pytest.mark.parametrize("rate", RATES)
def test_an_edit_that_changes_nothing_gives_the_input_back(rate: int) -> None:
    x_CN = noise(rate, channels=2)
    assert torch.equal(rendered(x_CN, rate, {}, Manner("ratio")), x_CN)
    assert (rendered(x_CN, rate, louder(1.0), Manner("ratio")) - x_CN).abs().max() < 1e-6
    assert torch.equal(rendered(x_CN, rate, louder(1.0), Manner("keep")), x_CN)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("factor", "db"), [(2.0, SIX_DB), (0.5, -SIX_DB)])
def test_a_gain_of_the_codec_is_a_gain_of_the_sound(rate: int, factor: float, db: float) -> None:
    x_CN = noise(rate)
    y_CN = rendered(x_CN, rate, louder(factor), Manner("ratio"))
    assert level_db(y_CN) - level_db(x_CN) == pytest.approx(db, abs=0.01)
    # the fine structure and the phases are the input's
    middle = slice(rate // 10, -rate // 10)
    assert (y_CN - factor * x_CN)[:, middle].abs().max() < 1e-3


@pytest.mark.parametrize(("residual", "expected"), [("ratio", SIX_DB), ("keep", 0.0), ("drop", 3.0)])
def test_energy_above_the_codecs_band_follows(residual: Any, expected: float) -> None:
    x_CN = noise(48_000)
    y_CN = rendered(x_CN, 48_000, louder(2.0), Manner(residual, above_db=3.0))
    high = [level_db(above(x, 48_000, 13_000)) for x in (x_CN, y_CN)]
    assert high[1] - high[0] == pytest.approx(expected, abs=0.05)


def test_without_the_input_the_output_is_the_codecs() -> None:
    x_CN = noise(24_000, channels=2).float().double()
    assert torch.equal(rendered(x_CN, 24_000, {}, Manner("drop")), x_CN)
    renderer = Renderer(steered(), 20.0)
    assert torch.equal(torch.cat(list(renderer.round_trip([x_CN], 24_000)), dim=1), x_CN)


@pytest.mark.parametrize("residual", ["keep", "drop", "ratio"])
@pytest.mark.parametrize("rate", [24_000, 44_100])
@pytest.mark.parametrize("chunk_s", [0.3, 20.0])
def test_outside_the_spans_nothing_changes(residual: Any, rate: int, chunk_s: float) -> None:
    spans = [(0.4, 0.7), (1.1, 1.105)]
    x_CN = noise(rate, channels=2, level=0.5)  # of which some is beyond full scale
    manner = Manner(residual, spans=spans, limit=True, above_db=3.0)
    y_CN = rendered(x_CN, rate, louder(2.0, spans), manner, chunk_s)
    seconds_N = torch.arange(x_CN.shape[1]) / rate
    inside_N = sum((seconds_N > start) & (seconds_N < end) for start, end in spans).bool()  # type: ignore[attr-defined]
    assert torch.equal(y_CN[:, ~inside_N], x_CN[:, ~inside_N])
    assert (y_CN != x_CN)[:, inside_N].float().mean() > 0.9


def test_the_share_inside_rises_and_falls_within_the_span() -> None:
    share_N = inside_share([(0.1, 0.3)], 0.0, 400, 1000)
    assert not share_N[:101].any() and not share_N[300:].any()
    edge = round(1000 * EDGE_S)
    assert (share_N[100 + edge : 300 - edge + 1] == 1).all()
    assert (share_N[100 : 100 + edge].diff() > 0).all() and (share_N[300 - edge : 300].diff() < 0).all()
    # a chunk that starts later
    assert torch.allclose(inside_share([(0.1, 0.3)], 0.15, 50, 1000), share_N[150:200])
    # a span that is shorter than two fades
    short_N = inside_share([(0.1, 0.11)], 0.0, 400, 1000)
    assert not short_N[:101].any() and not short_N[110:].any() and short_N.max() == 1


@pytest.mark.parametrize("manner", [Manner("ratio"), Manner("ratio", moves_pitch=True), Manner("drop"), Manner("keep")])
@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_chunks_give_what_the_whole_gives(manner: Manner, rate: int) -> None:
    x_CN = noise(rate, 3.1, 2)
    chunked, whole = (rendered(x_CN, rate, louder(1.5), manner, chunk_s) for chunk_s in (0.4, 100.0))
    # windows lie elsewhere in each chunk
    limit = 1e-6 if manner.residual == "keep" else 0.02 * float(x_CN.abs().max())
    assert (chunked - whole).abs().max() < limit
    assert level_db(chunked - whole) < level_db(x_CN) - 45


def test_time_in_edits_is_time_of_the_file() -> None:
    x_CN = noise(24_000)
    edits = louder(2.0, (10.2, 10.4))
    y_CN = rendered(x_CN, 24_000, edits, Manner("keep", spans=[(10.2, 10.4)]), start_s=10.0)
    changed = (y_CN != x_CN)[0].nonzero()[:, 0] / 24_000
    assert 0.2 < changed.min() < 0.201 and 0.399 < changed.max() < 0.4


@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_linked_channels_keep_their_level_difference(rate: int) -> None:
    one_CN = noise(rate)
    x_CN = torch.cat([one_CN, 0.5 * one_CN])
    y_CN = rendered(x_CN, rate, louder(2.0), Manner("ratio", moves_pitch=True, linked=True, above_db=SIX_DB))
    assert level_db(y_CN[0]) - level_db(y_CN[1]) == pytest.approx(SIX_DB, abs=0.1)
    assert level_db(y_CN) - level_db(x_CN) == pytest.approx(SIX_DB, abs=0.2)


@pytest.mark.parametrize("rate", [24_000, 44_100])
@pytest.mark.parametrize("residual", ["keep", "drop", "ratio"])
def test_linked_channels_stay_as_many(rate: int, residual: Any) -> None:
    x_CN = noise(rate, channels=2)
    rendered(x_CN, rate, louder(2.0), Manner(residual, moves_pitch=True, linked=True))


def test_the_limiter_turns_all_channels_down_alike() -> None:
    one_CN = noise(24_000, level=0.3)
    x_CN = torch.cat([one_CN, 0.1 * one_CN])
    renderer = Renderer(steered(), 20.0)
    y_CN = rendered(x_CN, 24_000, louder(2.0), Manner("keep", limit=True), renderer=renderer)
    assert true_peaks(y_CN).max() < 1.01 * CEILING
    assert torch.allclose(y_CN[1], 0.1 * y_CN[0], atol=1e-7)
    assert renderer.turned_down_db > 3


def test_overflow_is_refused_where_it_happens() -> None:
    with pytest.raises(EditError, match=r"overflow near 0\.[5-9] s: use smaller values"):
        rendered(noise(24_000, level=10.0), 24_000, louder(1e38, (1.0, 1.2)), Manner("drop"), 0.3)


def test_a_memory_saves_encodings_and_changes_nothing() -> None:
    model = steered()
    codec = model.model
    assert isinstance(codec, Frames)
    renderer, memory, x_CN = Renderer(model, 0.5), {}, noise(24_000)
    first, second = (
        rendered(x_CN, 24_000, louder(2.0), Manner("ratio"), renderer=renderer, memory=memory) for _ in range(2)
    )
    count = codec.encoded
    assert torch.equal(first, second) and count == len(memory)
    other = rendered(x_CN, 24_000, louder(3.0), Manner("ratio"), renderer=renderer, memory=memory)
    assert codec.encoded == count
    assert torch.equal(other, rendered(x_CN, 24_000, louder(3.0), Manner("ratio"), 0.5))


def test_planned_edits_depend_on_the_latent() -> None:
    x_CN = noise(24_000)
    seen: list[float] = []

    def planned(latent_CTD: Tensor, audio_CN: Tensor, at_s: float) -> Any:
        seen.append(at_s)
        assert latent_CTD.shape[0] == 1 and latent_CTD.shape[2] == 60
        return louder(2.0) if at_s < 0.6 else {}

    y_CN = rendered(x_CN, 24_000, {}, Manner("keep"), 0.5, planned=planned)
    assert torch.allclose(y_CN[:, :9_000], 2 * x_CN[:, :9_000], atol=1e-6)
    assert torch.equal(y_CN[:, -9_000:], x_CN[:, -9_000:])
    assert len(seen) == 3


def test_a_codec_without_a_pitch_coordinate_moves_none() -> None:
    assert Renderer(steered(), 20.0).pitch_change(noise(24_000), 24_000, louder(2.0), 0.0) == 0


def test_the_pitch_that_edits_move_is_read_off_the_latent() -> None:
    model = steered()
    assert isinstance(model.model, Frames)
    model.model.pitch = lambda z_BTD: 60 + 12 * torch.log2(z_BTD.abs().mean(2))
    renderer = Renderer(model, 20.0)
    assert renderer.pitch_change(noise(24_000), 24_000, louder(2.0), 0.0) == pytest.approx(12, abs=1e-3)
    assert renderer.pitch_change(noise(24_000), 24_000, {}, 0.0) == 0


def test_what_has_no_pitch_to_move_is_counted_by_its_energy() -> None:
    wrapped = steered()
    renderer = Renderer(wrapped, 20.0)
    codec = renderer.codec
    x_CN = noise(24_000, 2.0)
    x_CN[:, 24_000:] *= 2.0
    # the first second has a pitch, the second one of four times the energy has none
    codec.voicing = lambda z_BTD: (torch.arange(z_BTD.shape[1]) < codec.frame_rate).float()[None]
    rendered(x_CN, 24_000, louder(1.5), Manner("ratio", moves_pitch=True), renderer=renderer)
    assert renderer.unmoved == pytest.approx(0.8, abs=0.02)  # windows of the spectrum lie over the border
    rendered(x_CN, 24_000, louder(1.5), Manner("ratio"), renderer=renderer)
    assert renderer.unmoved is None
