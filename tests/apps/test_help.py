"""Help, version and completion of the shell: what each command shows, and that its example is one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from apps.cli import app, steer

Run = Callable[..., tuple[int, str, str]]
PANELS = ("Edit and transcribe sounds", "Features and SAEs", "Models, results and this machine")
ROOT = Path(__file__).parents[2]


def commands(group: Any, context: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """(names, command, context of the group that has it) of every command, those of evaluators too."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            inner = command.make_context(name, [], parent=context, resilient_parsing=True)
            yield from commands(command, inner, (*names, name))
        else:
            yield (*names, name), command, context


def every_command() -> list[tuple[tuple[str, ...], Any, Any]]:
    root = steer()
    return list(commands(root, root.make_context("steer", [], resilient_parsing=True)))


def test_every_command_has_an_example_that_it_takes() -> None:
    found = every_command()
    assert {"edit", "doctor", "recipe pack", "evaluate gates", "evaluate all"} <= {" ".join(one) for one, _, _ in found}
    for names, command, context in found:
        assert command.epilog.startswith(f"Example: steer {' '.join(names)}"), names
        typed = shlex.split(command.epilog.removeprefix("Example: steer "))[len(names) :]
        assert command.make_context(names[-1], typed, parent=context).params, names  # else typer says what is wrong


def test_commands_are_in_panels_and_each_has_messages() -> None:
    for name, command in steer().commands.items():
        assert command.rich_help_panel in PANELS, name
    for names, command, _ in every_command():
        panels = {param.name: param.rich_help_panel for param in command.params if param.param_type_name == "option"}
        assert panels["quiet"] == panels["verbose"] == "Messages", names


def test_help_shows_panels_and_the_example(steer: Run) -> None:
    code, out, _ = steer("--help")
    assert code == 0
    for said in (*PANELS, "--install-completion", "--version", "steer doctor"):
        assert said in out
    code, out, _ = steer("edit", "--help")
    text = " ".join(out.split())
    assert code == 0 and "Example: steer edit talk.wav -o higher.wav --pitch +4st --plot higher.png" in text
    for said in ("Voice and pitch", "Messages", "--quiet"):
        assert said in text


def test_version(steer: Run) -> None:
    assert steer("--version") == (0, f"{version('audiosteer')}\n", "")


def test_version_of_a_checkout_that_is_not_installed(steer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps import installation

    monkeypatch.setattr(installation, "OURS", "no-such-package")
    code, out, _ = steer("--version")
    assert code == 0 and "not installed" in out


PROGRAM = "import sys; sys.argv[0] = 'steer'; from apps.cli import main; main({arguments!r})"
NO_TORCH = "import sys; sys.modules['torch'] = None; "


def completed(words: str, shell: str = "bash") -> list[str]:
    """What the shell is given to choose from; torch cannot be imported meanwhile."""
    variables = {"_STEER_COMPLETE": f"complete_{shell}", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    program = [sys.executable, "-c", NO_TORCH + PROGRAM.format(arguments=[])]
    done = subprocess.run(program, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
    return done.stdout.split()


def test_completion_knows_commands_options_and_values() -> None:
    assert completed("steer tr") == ["transcribe", "train"]
    assert completed("steer edit --resid") == ["--residual"]
    assert completed("steer edit a.wav --residual k") == ["keep"]
    assert completed("steer recipe ") == ["pack", "show"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_has_a_script_for_each_shell(shell: str) -> None:
    variables = {**os.environ, "_STEER_COMPLETE": f"source_{shell}"}
    program = [sys.executable, "-c", NO_TORCH + PROGRAM.format(arguments=[])]
    done = subprocess.run(program, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0 and f"_STEER_COMPLETE=complete_{shell}" in done.stdout.replace('"', "")


def test_completion_is_typers_own() -> None:
    names = {param.name for param in typer.main.get_command(app).params}
    assert {"install_completion", "show_completion", "version", "quiet", "verbose"} <= names
