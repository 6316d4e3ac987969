"""Many sounds through `whisper.transcribe` at once, with the model's work in batches.

Each sound has a thread in which the package goes its own way: temperatures, seeking, prompts, segments, all its own.
Only what it asks of the model waits until every thread has asked; then the thread that called answers: it encodes all
windows as one batch, and decodes requests that are alike as one. A window that is decoded again at a higher temperature
is not encoded again, as it is by the package. The model runs where its edits are: no other thread touches it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hooks.errors import require
from hooks.families.whisper.base import MEL_RATE, window
from hooks.families.whisper.on_time import CutOut, OnTime, turn_of
from hooks.model import Source
from hooks.random_numbers import seeded
from hooks.threads import be_single
from hooks.timing import Whole, current_time, rows_at
from hooks.transcript import Transcript


@dataclass(eq=False)
class Request:
    """What the package asks of the model: `call(mel, *rest)`, for a window from and to these seconds."""

    call: Callable[..., Any]
    mel: Tensor
    rest: tuple[Any, ...]
    time: tuple[float, float]
    whole: Whole | None = None
    encoded: Tensor | None = None
    answer: Any = None
    error: Exception | None = None

    def is_of_the_window_of(self, other: Request) -> bool:
        return self.time == other.time and torch.equal(self.mel, other.mel)

    def goes_with(self, other: Request) -> bool:
        """Whether both can be rows of one batch: nothing drawn at random, no beams, and all but the sound the same."""
        greedy = all(options.temperature == 0 and options.beam_size is None for options in self.rest)
        return greedy and (self.call, self.rest) == (other.call, other.rest)


class Dismissed(Exception):
    """Ends the threads when the one that answers them has stopped."""


class Meeting:
    """Where the threads' requests wait until all who are still at work have asked."""

    def __init__(self, module: Any, threads: int, seed: int | None = None) -> None:
        self.module, self.at_work, self.seed = module, threads, seed
        self.drawn: dict[int, list[Tensor]] = {number: [] for number in range(threads)}
        self.waiting: dict[int, Request] = {}
        self.last: dict[int, Request] = {}
        self.closed = False
        self.changed = threading.Condition()

    def ask(self, number: int, request: Request) -> Any:
        """In a thread: wait for the answer to the request of sound `number`."""
        with self.changed:
            self.waiting[number] = request
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.closed or self.waiting.get(number) is not request)
            if self.waiting.get(number) is request:
                raise Dismissed
        if request.error is not None:
            raise request.error
        return request.answer

    def leave(self) -> None:
        """In a thread: ask no more."""
        with self.changed:
            self.at_work -= 1
            self.changed.notify_all()

    def close(self) -> None:
        """Send away who waits and who comes."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def serve(self) -> None:
        """Answer until all have left."""
        while asked := self._asked():
            self._try(asked, self._encode)
            for group in groups_of({number: request for number, request in asked.items() if not request.error}):
                self._try(group, self._answer)
            self.last = asked
            with self.changed:
                self.waiting.clear()
                self.changed.notify_all()

    def _try(self, requests: Mapping[int, Request], do: Callable[[Mapping[int, Request]], None]) -> None:
        """What goes wrong is raised in the threads that asked."""
        try:
            with turn_of(self.module):
                do(requests)
        except Exception as error:
            for request in requests.values():
                request.error = error

    @torch.no_grad()
    def _encode(self, asked: Mapping[int, Request]) -> None:
        new = []
        for number, request in asked.items():
            last = self.last.get(number)
            if last is not None and request.is_of_the_window_of(last):
                request.encoded = last.encoded
            else:
                new.append(request)
        if new:
            with at_times(new):
                encoded_BTD = self.module.encoder(torch.stack([request.mel for request in new]))
            for request, encoded_TD in zip(new, encoded_BTD, strict=True):
                request.encoded = encoded_TD

    def _answer(self, group: Mapping[int, Request]) -> None:
        requests = list(group.values())
        with self._drawing(group), at_times(requests):
            answers = answered(requests)
        for request, answer in zip(requests, answers, strict=True):
            request.answer = answer

    @contextmanager
    def _drawing(self, group: Mapping[int, Request]) -> Iterator[None]:
        """What is drawn for a sound comes from numbers of its own; those that go together draw nothing."""
        if self.seed is None or len(group) > 1:
            yield
            return
        (number,) = group
        with seeded(self.seed, self.module.device, self.drawn[number]):
            yield

    def _asked(self) -> dict[int, Request]:
        """What everybody asks, in the order of the sounds."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.waiting) == self.at_work)
            return dict(sorted(self.waiting.items()))


def groups_of(asked: Mapping[int, Request]) -> list[dict[int, Request]]:
    """Requests that go with each other."""
    groups: list[dict[int, Request]] = []
    for number, request in asked.items():
        group = next((one for one in groups if request.goes_with(next(iter(one.values())))), None)
        if group is None:
            groups.append({number: request})
        else:
            group[number] = request
    return groups


def at_times(requests: Sequence[Request]) -> AbstractContextManager[None]:
    """Rows of these requests are at the times of theirs."""
    times, wholes = [request.time for request in requests], tuple(one.whole for one in requests if one.whole)
    return window(*times[0], wholes) if len(requests) == 1 else rows_at(times, wholes or None)


def answered(requests: Sequence[Request]) -> list[Any]:
    """What the model says to requests that go with each other; the package takes encoded sound for a spectrogram."""
    encoded = [request.encoded for request in requests if request.encoded is not None]
    call, rest = requests[0].call, requests[0].rest
    if len(requests) == 1:
        return [call(encoded[0], *rest)]
    answer = call(torch.stack(encoded), *rest)
    # languages come as tokens and, beside them, probabilities
    return list(zip(*answer, strict=True)) if isinstance(answer, tuple) else answer


class Asking(OnTime):
    """Stands in for the module inside one of the threads."""

    def __init__(self, module: Any, start_s: float, meeting: Meeting, number: int) -> None:
        super().__init__(module, start_s)
        self.meeting, self.number = meeting, number

    def _timed(self, call: Any, mel: CutOut, *rest: Any) -> Any:
        start, stop = mel.span
        time = (self.start_s + start / MEL_RATE, self.start_s + stop / MEL_RATE)
        return self.meeting.ask(self.number, Request(call, mel.as_subclass(Tensor), rest, time, self.whole))


def transcribe_together(
    module: Any, transcribe: Callable[[OnTime, Source], Transcript], sources: Sequence[Source], seed: int | None = None
) -> list[Transcript]:
    """What `transcribe` finds in each of the sounds with what stands in for the module of the package.

    No thread outlives it, whatever happens.
    """
    require("whisper", "whisper")
    start_s, meeting = current_time() or 0.0, Meeting(module, len(sources), seed)
    found: list[Transcript | BaseException] = [Dismissed()] * len(sources)

    def work(number: int) -> None:
        try:
            be_single()  # for the spectrogram, which is all that is computed here
            found[number] = transcribe(Asking(module, start_s, meeting, number), sources[number])
        except BaseException as error:  # raised where the caller is
            found[number] = error
        finally:
            meeting.leave()

    # what the caller has set in context variables holds in the threads as well
    threads = [
        threading.Thread(
            target=copy_context().run, args=(work, number), name=f"whisper.transcribe {number}", daemon=True
        )
        for number in range(len(sources))
    ]
    try:
        for thread in threads:
            thread.start()
        meeting.serve()
    finally:
        meeting.close()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    transcripts = []
    for one in found:
        if isinstance(one, BaseException):
            raise one
        transcripts.append(one)
    return transcripts
