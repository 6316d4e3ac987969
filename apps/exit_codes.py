"""How a command ends: exit codes that scripts can rely on."""

from __future__ import annotations

FAILED = 1
"""Some files of a batch failed, or some evaluations, or `steer doctor` found a problem."""
WRONG_INPUT = 2
"""Also typer's own code for options that it cannot read."""
UNMET = 3
"""A goal was not reached; the files are written."""
INTERRUPTED = 130
"""Ctrl-C: 128 and the number of the signal, as shells have it."""
