"""Many sounds through `whisper.transcribe` at once, with the model's work in batches.

Each sound has a thread in which the package goes its own way: temperatures, seeking, prompts, segments, all its own.
Only what it asks of the model waits until every thread has asked; then the thread that called answers, with requests
that are alike as one batch. So the model runs where its edits are, and threads other than that never touch it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hooks.attach import current_time
from hooks.errors import require
from hooks.families.whisper import MEL_RATE, CutOut, OnTime, WhisperPackage, turn_of, window
from hooks.model import Source, Transcript
from hooks.rows import rows_at


@dataclass(eq=False)
class Request:
    """What the package asks of the model: `call(mel, *rest)`, for a window from and to these seconds."""

    call: Callable[..., Any]
    mel: Tensor
    rest: tuple[Any, ...]
    time: tuple[float, float]
    answer: Any = None
    error: Exception | None = None

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
        self.drawn: dict[int, Tensor] = {}
        self.waiting: dict[int, Request] = {}
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
        while groups := self._gathered():
            for group in groups:
                requests = list(group.values())
                try:
                    with turn_of(self.module), self._drawing(group):
                        answers = answered(requests)
                except Exception as error:
                    for request in requests:
                        request.error = error
                else:
                    for request, answer in zip(requests, answers, strict=True):
                        request.answer = answer
                with self.changed:
                    for number in group:
                        del self.waiting[number]
                    self.changed.notify_all()

    @contextmanager
    def _drawing(self, group: Mapping[int, Request]) -> Iterator[None]:
        """What is drawn for a sound comes from numbers of its own; those that go together draw nothing."""
        if self.seed is None or len(group) > 1:
            yield
            return
        (number,) = group
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            if number in self.drawn:
                torch.set_rng_state(self.drawn[number])
            yield
            self.drawn[number] = torch.get_rng_state()

    def _gathered(self) -> list[dict[int, Request]]:
        """What everybody asks, {number: request} for each batch, in the order of the sounds."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.waiting) == self.at_work)
            asked = sorted(self.waiting.items())
        groups: list[dict[int, Request]] = []
        for number, request in asked:
            group = next((one for one in groups if request.goes_with(next(iter(one.values())))), None)
            if group is None:
                groups.append({number: request})
            else:
                group[number] = request
        return groups


def answered(requests: Sequence[Request]) -> list[Any]:
    """What the model says to requests that go with each other."""
    first = requests[0]
    if len(requests) == 1:
        with window(*first.time):
            return [first.call(first.mel, *first.rest)]
    with rows_at([request.time for request in requests]):
        answer = first.call(torch.stack([request.mel for request in requests]), *first.rest)
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
        return self.meeting.ask(self.number, Request(call, mel.as_subclass(Tensor), rest, time))


def transcribe_together(
    model: WhisperPackage, sources: Sequence[Source], options: dict[str, Any], seed: int | None = None
) -> list[Transcript]:
    """`WhisperPackage.transcribe_all` without times of words. No thread outlives it, whatever happens."""
    require("whisper", "whisper")
    start_s, meeting = current_time() or 0.0, Meeting(model.module, len(sources), seed)
    found: list[Transcript | BaseException] = [Dismissed()] * len(sources)

    def work(number: int) -> None:
        try:
            module = Asking(model.module, start_s, meeting, number)
            found[number] = model.transcribe_by(module, sources[number], **options)
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
