"""Several processes that train as one: `process_group` joins those that torchrun or the caller started.

Each has its rows of every batch; what looks at the whole batch asks the `Group`. Gradients are averaged, so all take
the same step, and only the first process writes.

No process waits for one that failed. What the first one does alone, and what all do before the first step, fails in
all at once. Any other error ends the group of the process it is in: the others then find their connections closed. On
GPUs it is torchrun (or `torch.multiprocessing.spawn`) that ends them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hooks.errors import one_line
from steer.errors import TrainingError

Result = TypeVar("Result")

LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""What torchrun tells its processes."""
PATIENCE = timedelta(days=2)
"""So long the others wait for what the first process does alone, such as running a model on all sounds."""
joined = itertools.count()


@dataclass
class Group:
    """The processes of a training, this one being number `rank` of `size`. One alone asks nobody.

    Raises (all methods):
        TrainingError: another process has ended.
    """

    rank: int = 0
    size: int = 1
    tensors: dist.ProcessGroup | None = None
    words: dist.ProcessGroup | None = None

    def rows(self, x_ND: Tensor) -> Tensor:
        """This process's share [N / size, D] of a batch."""
        count = len(x_ND) // self.size
        return x_ND[self.rank * count : (self.rank + 1) * count]

    def sum(self, x: Tensor) -> Tensor:
        return self._reduced(x, dist.ReduceOp.SUM) if self.size > 1 else x

    def mean(self, x: Tensor) -> Tensor:
        return self.sum(x / self.size) if self.size > 1 else x

    def least(self, x: Tensor) -> Tensor:
        return self._reduced(x, dist.ReduceOp.MIN) if self.size > 1 else x

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Put the means over all processes in the tensors' place."""
        if self.size == 1:
            return
        with connected():
            # a transposed tensor as it lies in memory
            flat = [x if x.is_contiguous() else x.T for x in tensors]
            works = [dist.all_reduce(x.div_(self.size), group=self.tensors, async_op=True) for x in flat]
            for work in works:
                work.wait()

    def gather(self, x_P: Tensor) -> tuple[Tensor, int]:
        """The numbers of all processes, one process after the other, and where those of this one begin."""
        if self.size == 1:
            return x_P, 0
        with connected():
            lengths = [torch.zeros(1, dtype=torch.long, device=x_P.device) for _ in range(self.size)]
            dist.all_gather(lengths, torch.full_like(lengths[0], len(x_P)), group=self.tensors)
            counts = [int(length) for length in lengths]
            # all send equally many
            parts = [x_P.new_zeros(max(counts)) for _ in counts]
            mine = x_P.new_zeros(max(counts))
            mine[: len(x_P)] = x_P
            dist.all_gather(parts, mine, group=self.tensors)
        whole = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
        return whole, sum(counts[: self.rank])

    def together(self, job: Callable[[], Result]) -> list[Result]:
        """What `job` gives in each process; if it fails in one, all raise."""
        if self.size == 1:
            return [job()]
        told: list[tuple[Result | None, str]] = [(None, "")] * self.size
        failed = None
        try:
            mine: tuple[Result | None, str] = (job(), "")
        except Exception as error:
            failed, mine = error, (None, f"process {self.rank}: {one_line(error)}")
        with connected():
            dist.all_gather_object(told, mine, group=self.words)
        if failed:
            raise failed
        if errors := [error for _, error in told if error]:
            raise TrainingError(errors[0])
        return [result for result, _ in told]  # type: ignore[misc]

    def once(self, job: Callable[[], Result]) -> Result | None:
        """What `job` gives in the first process, None in the others, who wait; if it fails, all raise."""
        given: list[Result] = []
        self.together(lambda: given.append(job()) if self.rank == 0 else None)
        return given[0] if given else None

    def _reduced(self, x: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        whole = x.detach().clone()
        with connected():
            dist.all_reduce(whole, how, group=self.tensors)
        return whole


ALONE = Group()


@contextmanager
def process_group(device: str | torch.device | None = None) -> Iterator[Group]:
    """The processes that torch.distributed or torchrun's environment names, or `ALONE`; all have to enter.

    What is started here is ended at the end. Tensors go over nccl on GPUs, else over gloo. May be nested.

    Raises:
        TrainingError: the processes cannot be joined, or a device that is neither a CPU nor a CUDA GPU.
    """
    own = not (dist.is_available() and dist.is_initialized())
    launched = os.environ.keys() >= LAUNCHED
    size = (int(os.environ["WORLD_SIZE"]) if launched else 1) if own else dist.get_world_size()
    if size == 1:
        yield ALONE
        return
    kind = own_device(device).type
    if kind not in ("cpu", "cuda"):
        raise TrainingError(f"several processes train on cpu or cuda, not on {kind}")
    try:
        if own:
            # a prefix each time: what an ended group left in the store is not for the next
            store = dist.PrefixStore(f"steer-{next(joined)}", meeting_point())
            dist.init_process_group("gloo", store=store, rank=int(os.environ["RANK"]), world_size=size)
        group = Group(
            dist.get_rank(),
            size,
            dist.new_group(backend="nccl" if kind == "cuda" else "gloo"),
            dist.new_group(backend="gloo", timeout=PATIENCE),
        )
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the {size} processes could not be joined ({one_line(error)})") from error
    try:
        yield group
    finally:
        if not own:
            dist.destroy_process_group(group.tensors)
            dist.destroy_process_group(group.words)
        else:
            dist.destroy_process_group()
        # connections close with the last reference, and a traceback may hold the group itself
        group.tensors = group.words = None


@cache
def meeting_point() -> dist.Store:
    """Where the processes find each other. Kept: a second one at the same port would meet the end of the first."""
    store, _, _ = next(dist.rendezvous("env://"))
    return store


def own_device(wanted: str | torch.device | None = None) -> torch.device:
    """The device that is wanted, by default the GPU if there is one: of several, that of this process.

    Raises:
        TrainingError: no such device, or more processes on this machine than GPUs.
    """
    try:
        device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise TrainingError(f"there is no device {str(wanted)!r}; use cpu, cuda or cuda:1") from error
    if str(device) != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= count:
        raise TrainingError(f"process {local} of this machine has no GPU: there are {count}; start as many processes")
    return torch.device("cuda", local)


@contextmanager
def connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(f"another process of this training has ended ({one_line(error)})") from error
