"""Threads of Python beside the one that runs the model, and programs beside this one."""

from __future__ import annotations

import os
import time
from threading import Thread

import torch

BEGAN = time.monotonic()


def be_single() -> None:
    """Let torch use this thread alone for what is called in it; all other threads stay as they are.

    Each thread of Python that calls torch otherwise gets threads of OpenMP of its own. As soon as there are more of
    these than cores, libgomp has all of them sleep between operations, and a model takes half as long again.
    """
    threads = torch.get_num_threads()  # asked first: else torch would ask at the first operation, and take that number
    torch.set_num_threads(1)
    # that also was said to threads that start later
    other = Thread(target=torch.set_num_threads, args=(threads,))
    other.start()
    other.join()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_cores() -> float:
    """How many cores other programs kept busy over the last minute, about; 0 where the system does not say."""
    if not hasattr(os, "getloadavg"):  # Windows
        return 0.0
    own = time.process_time() / max(60.0, time.monotonic() - BEGAN)
    return max(0.0, os.getloadavg()[0] - own)


def busy_notice() -> str:
    """A line for the user of a long computation, where other programs leave its threads less than a core each."""
    busy, count = busy_cores(), cores()
    if busy < 0.5 or busy + torch.get_num_threads() < count + 0.5:
        return ""
    return f"other programs keep about {busy:.1f} of {count} cores busy: this takes longer than on an idle machine"
