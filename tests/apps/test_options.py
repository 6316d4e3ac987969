"""Groups of options: what a command shows and what it is called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from apps.cli import app
from apps.options import grouped


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(min=1, help="In pixels.")] = 3
    names: Annotated[list[str] | None, typer.Option("--name")] = None


@dataclass(frozen=True)
class Look:
    """A field as the parameter of the other group is called."""

    size: Annotated[str, typer.Option()]
    plain: Annotated[bool, typer.Option("--plain")] = False


@pytest.fixture
def calls() -> list[dict[str, Any]]:
    return []


def run(calls: list[dict[str, Any]], *arguments: str) -> Result:
    def command(*, first: Annotated[str, typer.Argument()], size: Size, look: Look, last: int = 0) -> None:
        """What it does."""
        calls.append({"first": first, "size": size, "look": look, "last": last})

    one = typer.Typer(add_completion=False)
    one.command()(grouped(command))
    return CliRunner().invoke(one, arguments)


def test_a_command_gets_its_groups_as_objects(calls: list[dict[str, Any]]) -> None:
    assert run(calls, "a", "--size", "big").exit_code == 0
    assert run(calls, "a", "--size", "big", "--width", "5", "--name", "x", "--name", "y", "--plain").exit_code == 0
    assert calls == [
        {"first": "a", "size": Size(3, None), "look": Look("big", False), "last": 0},
        {"first": "a", "size": Size(5, ["x", "y"]), "look": Look("big", True), "last": 0},
    ]


def test_options_stand_where_their_group_stands(calls: list[dict[str, Any]]) -> None:
    text = run(calls, "--help").output
    places = [text.index(name) for name in ("--width", "--name", "--size", "--plain", "--last")]
    assert places == sorted(places)
    assert "In pixels." in text and "What it does." in text and "default: 3" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("a",), "--size"), (("a", "--size", "b", "--width", "0"), "--width"), ((), "Missing argument")],
)
def test_a_mistake_names_the_option(calls: list[dict[str, Any]], arguments: tuple[str, ...], says: str) -> None:
    result = run(calls, *arguments)
    assert result.exit_code == 2 and says in result.output and not calls


def test_the_output_is_spelt_alike_in_all_commands() -> None:
    spelt = {
        tuple(option.opts)
        for command in typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
        for option in command.params
        if option.name == "out" and option.param_type_name == "option"
    }
    assert spelt == {("--out", "--output", "-o")}
