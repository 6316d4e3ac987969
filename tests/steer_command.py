"""`steer` as a function: a fixture for the modules that import it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apps.cli import main


@pytest.fixture
def steer(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `steer ARGUMENTS`: (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return run
