"""Sound as it comes, through a codec in bounded memory, joined without a seam: `Stream` for live blocks.

Chunks start on the codec's own grid of frames, with enough of what comes before and behind that the frames, and what is
kept of the output, are those of one pass over the whole. Short cross-fades cover what little an LSTM or a norm makes of
a cut, and edits that are changed while the sound runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hooks import ModelError, at_time
from hooks.attach import unhooked
from hooks.model import Codec
from hooks.random_numbers import seeded
from hooks.timing import Whole, saying
from steer.errors import EditError
from steer.steered import SteeredModel

FADE_S = 0.01
UNHEARD = 1e-4
"""The share of the output's peak below which what comes later counts as not heard."""

Process = Callable[[Tensor, float], Tensor]
"""Takes [C, n] at the codec's rate and its start in seconds, gives [C, n]."""


class Queue:
    """Samples [C, n] that wait: `add` at the end, `drop` at the head. `start` is the place of the head in the whole."""

    def __init__(self, channels: int, dtype: torch.dtype) -> None:
        self.start = 0
        self.samples = torch.zeros(channels, 0, dtype=dtype)

    @property
    def end(self) -> int:
        return self.start + self.samples.shape[1]

    def add(self, block_CN: Tensor) -> None:
        self.samples = torch.cat([self.samples, block_CN.to(self.samples.dtype)], dim=1)

    def part(self, start: int, end: int) -> Tensor:
        return self.samples[:, start - self.start : end - self.start]

    def drop(self, until: int) -> None:
        if until > self.start:
            # cloned, so that the dropped samples are set free
            self.samples = self.samples[:, until - self.start :].clone()
            self.start = until

    def take(self, count: int) -> Tensor:
        taken = self.samples[:, :count]
        self.drop(min(self.start + count, self.end))
        return taken


@dataclass(frozen=True)
class Plan:
    """How a codec's input is cut, in its samples: `core` is kept of the output of `before` + core + `after`.

    The cores' outputs overlap by `fade`.
    """

    core: int
    before: int
    after: int
    fade: int

    @classmethod
    def of(cls, codec: Codec, chunk_s: float, ahead_s: float | None = None) -> Plan:
        """Cores of about `chunk_s` seconds; the codec's own context on both sides, or `ahead_s` behind."""
        assert codec.sample_rate is not None
        # a codec that cuts its input into chunks itself is cut where it would cut
        own_s = getattr(codec, "chunk_s", None)
        grid = round(own_s * codec.sample_rate) if own_s else codec.hop_length
        core = max(1, round(chunk_s * codec.sample_rate / grid)) * grid

        def context(seconds: float) -> int:
            # one step of the grid more, so that the last frame in the context is whole
            return (math.ceil(seconds * codec.sample_rate / grid) + 1) * grid  # type: ignore[operator]

        before = context(codec.context_s)
        after = before if ahead_s is None else context(ahead_s)
        return cls(core, before, after, min(round(FADE_S * codec.sample_rate), after, core))


class Chunks:
    """Runs `process` over blocks [C, n] chunk by chunk; all outputs together are as long as the input, joined."""

    def __init__(self, plan: Plan, sample_rate: int, process: Process, dtype: torch.dtype = torch.float32) -> None:
        self.plan, self.sample_rate, self.process, self.dtype = plan, sample_rate, process, dtype
        self.queue: Queue | None = None
        self.tail_CN: Tensor | None = None
        self.core = 0  # where the next chunk's core starts

    def push(self, block_CN: Tensor) -> Iterator[Tensor]:
        """What is ready with this block."""
        self.queue = self.queue or Queue(block_CN.shape[0], self.dtype)
        self.queue.add(block_CN)
        while self.queue.end >= self.core + self.plan.core + self.plan.after:
            yield self._run(self.queue, end_of_sound=False)

    def finish(self) -> Iterator[Tensor]:
        """The rest, at the end of the sound."""
        if self.queue is None:
            return
        while self.queue.end > self.core + self.plan.core + self.plan.fade:
            yield self._run(self.queue, end_of_sound=False)
        if self.queue.end > self.core:
            yield self._run(self.queue, end_of_sound=True)

    def _run(self, queue: Queue, end_of_sound: bool) -> Tensor:
        plan = self.plan
        start = max(0, self.core - plan.before)
        output_CN = self.process(queue.part(start, self.core + plan.core + plan.after), start / self.sample_rate)
        kept_CN = output_CN[:, self.core - start :]
        if self.tail_CN is not None:
            width = min(self.tail_CN.shape[1], kept_CN.shape[1])
            # lerp gives exactly what both agree on
            rising = torch.linspace(0, 1, width, dtype=kept_CN.dtype)
            joined_CN = torch.lerp(self.tail_CN[:, :width], kept_CN[:, :width], rising)
            kept_CN = torch.cat([joined_CN, kept_CN[:, width:]], dim=1)
        if end_of_sound:
            return kept_CN
        self.tail_CN = kept_CN[:, plan.core : plan.core + plan.fade]
        self.core += plan.core
        queue.drop(self.core - plan.before)
        return kept_CN[:, : plan.core]


class Stream:
    """A codec on live sound, with the edits that are on where `push` is called.

        stream = Stream(steered, block_s=0.5)
        with steered.edit(Shift(brighter, strength)):
            for block_CN in microphone:
                loudspeaker.write(stream.push(block_CN))
            loudspeaker.write(stream.finish())

    Blocks [C, n] are at the codec's rate and of any length. The output is the input's round trip, `latency_s` seconds
    later: a chunk of `block_s` and what the codec hears of the future (`lookahead_s`, measured where it is not given;
    less makes the latency shorter and the output an approximation). A causal codec hears nothing of it, and needs a
    frame for the cross-fade. With `keep_residual` the output is the input plus what the edits change in the round trip,
    so that what the codec loses stays, at twice the cost. Time in edits (`during`) is from the stream's start. A gate
    (`when`) decides by block (scope window) or by seconds, for all channels together; the whole of a stream is not
    known, so none decides by clip.

    Raises:
        ModelError: no codec, or one that hears the whole sound at once.
    """

    def __init__(
        self,
        codec: Codec | SteeredModel,
        block_s: float = 0.5,
        *,
        lookahead_s: float | None = None,
        keep_residual: bool = False,
    ) -> None:
        model = codec.model if isinstance(codec, SteeredModel) else codec
        if not isinstance(model, Codec) or model.sample_rate is None:
            raise ModelError(f"{getattr(model, 'name', model)} is not a codec: only those give the sound back")
        if not block_s > 0 or (lookahead_s is not None and not lookahead_s >= 0):
            raise ModelError(f"block_s has to be above 0 and lookahead_s at least 0, not {block_s} and {lookahead_s}")
        self.codec, self.keep_residual = model, keep_residual
        with unhooked():
            self.lookahead_s = measured_lookahead_s(model) if lookahead_s is None else lookahead_s
        self.plan = Plan.of(model, block_s, self.lookahead_s)
        self.channels: int | None = None
        self.finished = False
        self._chunks = Chunks(self.plan, model.sample_rate, self._process)
        # the running state of a codec that has one, on either path
        self._edited: dict[str, Any] = {}
        self._plain: dict[str, Any] = {}
        self._whole = Whole()

    @property
    def latency_s(self) -> float:
        """The most seconds from a sample's arrival to that of its output, beside the time that computing takes."""
        assert self.codec.sample_rate is not None
        return (self.plan.core + self.plan.after) / self.codec.sample_rate

    def push(self, block_CN: Tensor) -> Tensor:
        """Take a block [C, n]; gives the output [C, m] that is ready, often none of it.

        Raises:
            EditError: no samples [C, n] with as many channels as before, or after `finish`; an edit that makes the
                sound overflow.
        """
        if self.finished:
            raise EditError("this stream is finished: a new sound needs a new one")
        if block_CN.ndim != 2 or not block_CN.shape[0] or block_CN.shape[0] != (self.channels or block_CN.shape[0]):
            raise EditError(f"a block is [{self.channels or 'channels'}, samples], not {list(block_CN.shape)}")
        self.channels = block_CN.shape[0]
        return torch.cat([block_CN.new_zeros(self.channels, 0), *self._chunks.push(block_CN)], dim=1)

    def finish(self) -> Tensor:
        """The rest of the output [C, m]: all of it together is as long as the input."""
        self.finished = True
        return torch.cat([torch.zeros(self.channels or self.codec.channels, 0), *self._chunks.finish()], dim=1)

    def _process(self, audio_CN: Tensor, at_s: float) -> Tensor:
        with saying(wholes=(self._whole,)):
            edited_CN = round_trip(self.codec, audio_CN, at_s, self._edited)
        if not torch.isfinite(edited_CN).all():
            raise EditError(f"the edit makes the sound overflow near {at_s:.1f} s: use smaller values")
        if not self.keep_residual:
            return edited_CN
        with unhooked():
            return audio_CN + (edited_CN - round_trip(self.codec, audio_CN, at_s, self._plain))


@torch.no_grad()
def round_trip(codec: Codec, audio_CN: Tensor, at_s: float = 0.0, carry: dict[str, Any] | None = None) -> Tensor:
    """[C, n] through the codec: each channel is a row of the batch, or each pair where the codec is stereo.

    Chunks of one recording, with the same edits, pass one `carry` (see `at_time`), so that they join.
    """
    channels, width = audio_CN.shape[0], codec.channels
    spare = -channels % width
    rows_BCN = torch.cat([audio_CN, audio_CN[-1:].expand(spare, -1)]).view(-1, width, audio_CN.shape[1])
    with at_time(at_s, carry):
        output_BCN = codec.run(rows_BCN.to(codec.device, codec.dtype))
    return output_BCN.float().cpu().flatten(0, 1)[:channels]


def measured_lookahead_s(codec: Codec) -> float:
    """How far into the future of a sample the codec hears to make it, in seconds, found out on noise.

    Raises:
        ModelError: all of what it was given.
    """
    assert codec.sample_rate is not None
    own_s = getattr(codec, "chunk_s", None) or codec.hop_length / codec.sample_rate
    half = round(math.ceil(max(1.0, 2 * codec.context_s) / own_s) * own_s * codec.sample_rate)
    generator = torch.Generator().manual_seed(0)
    past_CN, one_CN, other_CN = 0.1 * torch.randn(3, codec.channels, half, generator=generator)
    outputs = []
    for future_CN in (one_CN, other_CN):
        with seeded(0, codec.device):  # some models are random even in evaluation mode
            outputs.append(round_trip(codec, torch.cat([past_CN, future_CN], dim=1))[:, :half])
    heard_N = (outputs[0] - outputs[1]).abs().amax(0) > UNHEARD * outputs[0].abs().max()
    if heard_N[: half // 4].any():
        raise ModelError(f"{codec.name} hears the whole sound at once, so that it cannot run on a stream")
    return int((half - heard_N.nonzero()).amax()) / codec.sample_rate if heard_N.any() else 0.0
