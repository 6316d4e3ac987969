"""What a command writes to stderr beside its results: errors, warnings, progress, and with --verbose what it does.

Library code logs to loggers below `logging.getLogger("audiosteer")` and prints nothing; here the records become lines.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

log = logging.getLogger("audiosteer")
VERBOSE = (logging.WARNING, logging.INFO, logging.DEBUG)
"""Levels without --verbose, with one, and with two."""


class Lines(logging.Handler):
    """Writes a line for each record to the `sys.stderr` of that moment, which a progress bar may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class Line(logging.Formatter):
    """Records of commands as they are; those of the library after the program's name, details with time and place."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.name == log.name:
            return text
        if record.levelno > logging.DEBUG:
            return f"steer: {text}"
        return f"steer: {record.relativeCreated / 1000:.2f} s {record.name.removeprefix(f'{log.name}.')}: {text}"


def short_warning(message: Warning | str, *_: object) -> str:
    """A Python warning without the line of code that it comes from."""
    return f"steer: warning: {message}\n"


@contextmanager
def shown() -> Iterator[None]:
    """Write records and warnings to stderr while a command runs."""
    handler, level, format = Lines(), log.level, warnings.formatwarning
    handler.setFormatter(Line())
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    warnings.formatwarning = short_warning  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        warnings.formatwarning = format


PYTHONS_OWN = warnings.formatwarning


def set_level(quiet: bool, verbose: int) -> None:
    """What --quiet and --verbose ask for. Raises typer.BadParameter for both together."""
    if (quiet and (verbose or 0 < log.level < logging.WARNING)) or (verbose and is_quiet()):
        raise typer.BadParameter("--quiet and --verbose exclude each other")
    if quiet:
        log.setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    elif verbose:
        log.setLevel(VERBOSE[min(verbose, 2)])
        warnings.formatwarning = PYTHONS_OWN  # with the file and line


def is_quiet() -> bool:
    """Whether only errors are written to stderr."""
    return not log.isEnabledFor(logging.WARNING)
