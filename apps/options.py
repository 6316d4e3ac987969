"""Options that several commands share: single ones, and groups that a command gets as one object (see `grouped`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from apps.exit_codes import FAILED
from apps.messages import set_level

if TYPE_CHECKING:  # loads torch: `steer --help` does not wait for it
    from apps.batch.report import BatchReport
    from apps.batch.run import How
    from steer.recipe import Recipe


def panel(title: str) -> Callable[..., Any]:
    """`typer.Option` for a panel of the help."""
    return partial(typer.Option, rich_help_panel=title)


of_means, of_many, of_where, of_messages = map(panel, ("With what", "Many files", "Where", "Messages"))

SOUNDS = "Sound files, folders, quoted globs or manifests (.csv, .jsonl)."
Sounds = Annotated[list[str], typer.Argument(help=SOUNDS, show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite what exists.")]
Device = Annotated[str, of_means(help="Where the model runs: cpu, cuda or cuda:1, in each worker.")]
Layers = Annotated[str | None, of_where(help="all, or numbers such as 0,1: the sites encoder.N.")]
Batch = Annotated[
    int, typer.Option(min=1, help="Maximum number of sounds of equal length that run at once; rounding may differ.")
]
Quiet = Annotated[
    bool, of_messages("--quiet", "-q", help="Write only errors to stderr: no progress, notes or warnings.")
]
Verbose = Annotated[
    int,
    of_messages(
        "--verbose", "-v", count=True, show_default=False, help="Report on stderr what is done; -vv reports more."
    ),
]
Reports = Annotated[list[Path] | None, of_many("--report", help="File for a report, .html or .json. Repeatable.")]


def example(command: str) -> str:
    """The text below a command's help."""
    return f"Example: {command}"


def output(help: str) -> typer.models.OptionInfo:
    """The option -o, spelt alike in all commands."""
    return typer.Option("--out", "--output", "-o", help=help, show_default=False)


def sites_option(default: str) -> typer.models.OptionInfo:
    """The option --site of commands that take several; `default` says which it is."""
    return of_where("--site", "--sites", help=f"Sites, with commas. Default: {default}.")


@dataclass(frozen=True)
class Means:
    """A model with its SAE."""

    model: Annotated[str | None, of_means(help="Name or folder; see `steer models`.")] = None
    sae: Annotated[
        str | None, of_means(help="Name or folder of an SAE, of a model's own, or of all that steer train wrote.")
    ] = None
    site: Annotated[
        str | None, of_means(help="Where the SAE goes, if it does not say; or which of the model's own.")
    ] = None

    def recipe(self) -> Recipe:
        """Without goals and edits. Raises as `recipe_of`."""
        from apps.flags import recipe_of

        return recipe_of(model=self.model, sae=self.sae, site=self.site)


@dataclass(frozen=True)
class Many:
    """How many files are done, and where that is reported."""

    journal: Annotated[
        Path | None, of_many(help="Folder of the journal, by default the output's; for several commands at once.")
    ] = None
    workers: Annotated[int, of_many(min=0, help="Processes of this machine; by default this one alone.")] = 0
    cluster: Annotated[str, of_many(help="Dask scheduler, such as tcp://host:8786.")] = ""
    retry_failed: Annotated[bool, of_many("--retry-failed", help="Try what failed before again.")] = False
    reports: Reports = None

    def how(self, force: bool = False, alone: bool = False) -> How:
        """For `do_batch`; what it means is said at `How`."""
        from apps.batch.run import How

        return How(self.workers, self.cluster, force, self.retry_failed, alone, self.journal)

    def check(self) -> None:
        """Raises BatchError, before any work is done, for a report that is neither .html nor .json."""
        from apps.batch.report import check_names

        check_names(self.reports or [])

    def end(self, report: BatchReport) -> int:
        """Save the reports, write notes and warnings to stderr; gives the exit code."""
        for path in self.reports or []:
            report.save(path)
        report.tell_notes()
        report.warn()
        return FAILED if report.failed else 0


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command as typer reads it: a parameter whose type is a dataclass stands for an option of each of its fields.

    The options stand where the parameter stands, with the fields' names, annotations and defaults; the command is
    called with the object. --quiet and --verbose are added to each command.
    """
    groups: dict[str, type] = {}
    options: list[Parameter] = []
    for parameter in signature(command, eval_str=True).parameters.values():
        group = parameter.annotation
        if not (isinstance(group, type) and is_dataclass(group)):
            options.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = group
        hints = get_type_hints(group, include_extras=True)
        for field in fields(group):
            default = Parameter.empty if field.default is MISSING else field.default
            options.append(Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]))
    for name, kind, default in (("quiet", Quiet, False), ("verbose", Verbose, 0)):
        options.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind))

    @wraps(command)
    def run(**values: Any) -> None:
        set_level(values.pop("quiet"), values.pop("verbose"))
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **made)

    run.__signature__ = Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run
