"""Defaults of options, from `config.toml` in the user's configuration folder: a table for each command.

    [edit]
    residual = "keep"

    [evaluate.gates]
    device = "cuda"

The command line and environment variables win, and so does a recipe for what a recipe says.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Group = TypeVar("Group", bound=DataclassInstance)

VARIABLE = "AUDIOSTEER_CONFIG"
"""Names another file; where it is empty no file is read."""


class ConfigError(Exception):
    """A configuration file that cannot be used: one line with the file and the key."""


def config_path() -> Path | None:
    """The file that is read if it is there."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    return Path(typer.get_app_dir("audiosteer")) / "config.toml"


def defaults(root: Any, used: str | None = None) -> dict[str, Any]:
    """{command: {parameter: value}} as a context's `default_map` takes it.

    `root` is the context of the command `steer`. Tables of commands within a group, such as [evaluate.gates], are read
    only if the group is `used`, or if that is None: listing them loads torch.

    Raises:
        ConfigError: the file cannot be read, or has a table, a key or a value that no command takes.
    """
    path = config_path()
    if path is None:
        return {}
    return dict(tables(path, read(path), root.command, root, used))


def read(path: Path) -> dict[str, Any]:
    """A TOML file; {} where there is none, unless it is the variable that names it. Raises ConfigError."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if os.environ.get(VARIABLE):
            raise ConfigError(f"{path}: no such file ({VARIABLE})") from None
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # tomllib's own errors, and bytes that are not UTF-8
        raise ConfigError(f"{path}: is not TOML ({error})") from error


def tables(
    path: Path, values: Mapping[str, Any], group: Any, context: Any, used: str | None, within: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pairs of a command and its defaults."""
    commands = group.list_commands(context)
    for name, table in values.items():
        here = f"{within}{name}"
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {here!r} is not in the table of a command; write it below [edit], for example")
        if name not in commands:
            raise ConfigError(f"{path}: there is no command for the table [{here}]{did_you_mean(name, commands)}")
        if hasattr(group.get_command(context, name), "list_commands"):
            if used in (name, None):
                inner = typer_context(group, name, context)
                yield name, dict(tables(path, table, inner.command, inner, None, f"{here}."))
            continue
        inner = typer_context(group, name, context)
        yield name, dict(options(path, table, inner, here))


def typer_context(group: Any, name: str, parent: Any) -> Any:
    """The context of a command in which its options can be asked."""
    return group.get_command(parent, name).make_context(name, [], parent=parent, resilient_parsing=True)


def options(path: Path, table: Mapping[str, Any], context: Any, within: str) -> Iterator[tuple[str, Any]]:
    """Pairs of a parameter's name and its value, as if it had been typed."""
    known = {
        option.removeprefix("--"): parameter
        for parameter in context.command.params
        if parameter.param_type_name == "option"
        for option in parameter.opts
        if option.startswith("--")
    }
    for key, value in table.items():
        name, where = key.replace("_", "-"), f"{path}: [{within}] {key}"
        if name not in known:
            command = within.replace(".", " ")
            raise ConfigError(f"{where}: steer {command} has no such option{did_you_mean(name, known)}")
        parameter = known[name]
        typed = as_typed(value, parameter, where)
        try:
            parameter.process_value(context, typed)
        except Exception as error:  # typer's, whose class depends on its version
            said = " ".join(str(getattr(error, "message", error)).split())
            raise ConfigError(f"{where}: {said}") from error
        yield parameter.name, typed


def as_typed(value: Any, parameter: Any, where: str) -> Any:
    """A value of TOML as the command line gives it to typer: text, unless it is a switch. Raises ConfigError."""
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise ConfigError(f"{where}: is true or false, not {value!r}")
        return value
    several = value if isinstance(value, list) else [value]
    if len(several) != 1 and not parameter.multiple:
        raise ConfigError(f"{where}: takes one value, not a list")
    if wrong := [one for one in several if isinstance(one, bool | list | dict)]:
        raise ConfigError(f"{where}: {wrong[0]!r} is neither text nor a number")
    texts = [str(one) for one in several]
    return texts if parameter.multiple else texts[0]


def did_you_mean(name: str, known: Any) -> str:
    close = get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def typed(context: typer.Context, group: Group) -> Group:
    """A group of options without what the configuration file says: those fields have their defaults."""
    from_file = {
        field.name: field.default
        for field in fields(group)
        if field.default is not MISSING and is_from_file(context, field.name)
    }
    return replace(group, **from_file)


def is_from_file(context: typer.Context, name: str) -> bool:
    """Whether a parameter has its value from the configuration file."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"
