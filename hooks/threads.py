"""Threads of Python beside the one that runs the model."""

from __future__ import annotations

from threading import Thread

import torch


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
