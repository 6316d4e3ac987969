from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import soxr
import torch
from torch import Tensor

from apps.stream import in_chunks, resampled
from hooks import open_model
from steer.stream import Plan

PLAN = Plan(core=1000, before=300, after=200, fade=50)


def cut(samples_CN: Tensor, size: int) -> Iterator[Tensor]:
    yield from samples_CN.split(size, dim=1)


@pytest.mark.parametrize("count", [1, 40, 999, 1000, 1001, 1049, 1051, 1300, 1301, 5000, 5017])
@pytest.mark.parametrize("block", [7, 640, 10_000])
def test_chunks_join_to_exactly_the_input(count: int, block: int) -> None:
    samples_CN = torch.randn(2, count)
    seen: list[tuple[float, int]] = []

    def process(audio_CN: Tensor, start_s: float) -> Tensor:
        start = round(start_s * 100)
        assert torch.equal(audio_CN, samples_CN[:, start : start + audio_CN.shape[1]])
        seen.append((start, audio_CN.shape[1]))
        return audio_CN

    joined = torch.cat(list(in_chunks(cut(samples_CN, block), PLAN, 100, process)), dim=1)
    assert torch.equal(joined, samples_CN)
    assert max(length for _, length in seen) <= PLAN.core + PLAN.before + PLAN.after
    # chunks start on the grid that the core and the context are made of
    assert all(start % 100 == 0 for start, _ in seen)


def test_an_hour_needs_no_more_memory_than_a_minute() -> None:
    plan, rate, taken, given = Plan(20_000, 1_000, 1_000, 10), 1000, 0, 0

    def blocks() -> Iterator[Tensor]:
        nonlocal taken
        for _ in range(3600):
            taken += rate
            yield torch.ones(1, rate)

    def process(audio_CN: Tensor, start_s: float) -> Tensor:
        assert audio_CN.shape[1] <= plan.core + plan.before + plan.after
        return audio_CN

    for block_CN in in_chunks(resampled(blocks(), rate, rate), plan, rate, process):
        given += block_CN.shape[1]
        # what was read and not yet given: one chunk, its context and a block
        assert taken - given <= plan.core + plan.before + plan.after + rate
    assert given == 3_600_000


@pytest.mark.parametrize(("source", "target"), [(44_100, 24_000), (8_000, 24_000), (24_000, 11_025)])
def test_resampling_in_blocks_is_resampling_in_one(source: int, target: int) -> None:
    samples_CN = torch.randn(2, 20_011, dtype=torch.float64)
    streamed = torch.cat(list(resampled(cut(samples_CN, 997), source, target)), dim=1)
    assert torch.equal(streamed, torch.from_numpy(soxr.resample(samples_CN.T.numpy(), source, target)).T)


def test_codec_in_chunks_is_the_codec_in_one(codec_folder: Path) -> None:
    codec = open_model(codec_folder)
    samples_CN = 0.3 * torch.randn(1, 24_000 * 7 + 123) * torch.linspace(0, 1, 24_000 * 7 + 123)

    def process(audio_CN: Tensor, start_s: float) -> Tensor:
        return codec.run(audio_CN[:, None])[:, 0]

    whole = process(samples_CN, 0.0)
    plan = Plan.of(codec, chunk_s=2.0)  # type: ignore[arg-type]
    assert plan.core % 320 == 0
    assert plan.before % 320 == 0
    joined = torch.cat(list(in_chunks(cut(samples_CN, 5000), plan, 24_000, process)), dim=1)
    difference = (joined - whole).abs()[0]
    # float32 in another order, and what is left of the LSTM's memory after a second of context
    assert difference.max() < 1e-4 * whole.abs().max()
    borders = torch.zeros_like(difference, dtype=torch.bool)
    for border in range(plan.core, len(difference), plan.core):
        borders[border - 500 : border + 500] = True
    steps, steps_whole = joined.diff().abs()[0], whole.diff().abs()[0]
    # no seam: steps from sample to sample near borders are those of one pass
    assert (steps[borders[1:]].max() - steps_whole[borders[1:]].max()).abs() < 1e-4 * whole.abs().max()


def test_codec_that_cuts_its_input_is_cut_where_it_would_cut() -> None:
    class Chunked:
        sample_rate, hop_length, context_s, chunk_s = 48_000, 320, 1.0, 0.99

    plan = Plan.of(Chunked(), chunk_s=10.0)  # type: ignore[arg-type]
    assert plan.core % 47_520 == 0
    assert plan.before % 47_520 == 0
    assert plan.before > 48_000
