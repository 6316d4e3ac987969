"""`steer doctor`: what is installed here, what is missing, and how to get it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from apps.config import ConfigError, config_path, defaults
from apps.exit_codes import FAILED
from apps.options import Json


def doctor(
    context: typer.Context,
    load: Annotated[
        bool, typer.Option("--load", help="Import each installed library to see whether it works; takes longer.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show versions, optional libraries, devices and programs, what is missing, and how to get it.

    Exit codes: 0 all that is installed can be used, 1 something cannot, or a required library is missing.
    """
    facts = facts_of(context, load)
    if as_json:
        print(json.dumps(facts, indent=2))  # not to_json of apps.files, which needs torch
    else:
        show(facts)
    raise typer.Exit(FAILED if facts["problems"] else 0)


def facts_of(context: typer.Context, load: bool) -> dict[str, Any]:
    """All that is shown, as plain values; `problems` has a line for each."""
    from apps.installation import LIBRARIES, PROGRAMS, download_facts, library_facts, machine_facts, program_facts

    libraries = [library_facts(one, load) for one in LIBRARIES]
    config = config_facts(context)
    problems = [f"{one['name']} {one['problem']}" for one in libraries if one["problem"]]
    if config["problem"]:
        problems.append(config["problem"])
    return {
        **machine_facts(),
        "libraries": libraries,
        "programs": [program_facts(one) for one in PROGRAMS],
        "config": config,
        "downloads": download_facts(),
        "problems": problems,
    }


def config_facts(context: typer.Context) -> dict[str, Any]:
    """The configuration file, whether it is there, and what is wrong with it."""
    path, problem = config_path(), None
    try:
        assert context.parent is not None
        defaults(context.parent)
    except ConfigError as error:
        problem = str(error)
    except (ImportError, OSError) as error:  # tables of evaluators are read with torch
        problem = f"{path}: cannot be checked without torch ({error})"
    return {"file": str(path) if path else None, "exists": bool(path and path.exists()), "problem": problem}


def show(facts: dict[str, Any]) -> None:
    """Tables and lines for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from apps.installation import OURS

    console = Console()

    def lines(*texts: str) -> None:
        for text in texts:
            console.print(Text(text), soft_wrap=True)

    lines(f"AudioSteer {facts[OURS]}, Python {facts['python']}, {facts['system']}")
    if torch := facts["torch"]:
        used = f"{torch['threads']} threads on {torch['cores']} cores, {torch['instructions']}"
        lines(f"torch {torch['version']} ({torch['build']}); {used}", f"Devices: {', '.join(torch['devices'])}")
    for title, rows in (("Required libraries", required(facts)), ("Optional libraries", optional(facts))):
        table = Table(title=title, title_justify="left")
        for head in ("library", "version", "for", "get it with"):
            table.add_column(head, overflow="fold")
        for row in rows:
            version = "–" if row["version"] is None else str(row["version"])
            style = "red" if row["problem"] else "dim" if row["version"] is None else ""
            get = f"[{row['extra']}]" if row["get"] and row["extra"] else row["get"] or ""
            table.add_row(*map(Text, (row["name"], version, row["use"], get)), style=style)
        console.print(table)
    lines(f"An extra such as [eval] is installed by pip install '{OURS}[eval]'.")
    table = Table(title="Programs", title_justify="left")
    for head in ("program", "version", "for", "get it with"):
        table.add_column(head, overflow="fold")
    for row in facts["programs"]:
        version = "–" if row["version"] is None else row["version"] or "?"
        style = "dim" if row["version"] is None else ""
        table.add_row(*map(Text, (row["name"], version, row["use"], row["get"] or "")), style=style)
    console.print(table)
    config, downloads = facts["config"], facts["downloads"]
    state = "" if config["exists"] else " (not there)"
    lines(f"Configuration file: {config['file']}{state}" if config["file"] else "Configuration file: none")
    if downloads:
        offline = ", HF_HUB_OFFLINE is set" if downloads["offline"] else ""
        lines(f"Downloads: {downloads['folder']} ({downloads['free_gb']:.1f} GB free{offline})")
    for problem in facts["problems"]:
        console.print(Text(f"Problem: {problem}", "red"), soft_wrap=True)
    if not facts["problems"]:
        lines("No problems found.")


def required(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in facts["libraries"] if row["extra"] is None]


def optional(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in facts["libraries"] if row["extra"] is not None]
