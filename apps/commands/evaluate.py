"""`steer evaluate NAME`: how well edits or SAEs do, measured on labelled sounds.

The commands are made from the evaluators: a field of an evaluator's `Config` is an option.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from apps.exit_codes import FAILED
from apps.messages import log
from apps.options import Json, example, grouped, output

if TYPE_CHECKING:  # loads torch: `steer --help` shall not wait for it
    from pydantic.fields import FieldInfo

    from evaluation.config import Config
    from evaluation.frame import Evaluator
    from evaluation.report import Report

EVERYTHING = "all"

Out = Annotated[Path, output("Folder for the results.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure again what is there.")]


class Evaluators(TyperGroup):
    """A command for each evaluator, made when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        from evaluation.evaluators import EVALUATORS

        return [*EVALUATORS.all(), EVERYTHING]

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in self.list_commands(ctx):
            return None
        app = typer.Typer(add_completion=False, context_settings=dict(ctx.find_root().command.context_settings))
        command = grouped(everything() if name == EVERYTHING else one(name))
        app.command(name, epilog=example(f"steer evaluate {name} --out RESULTS {required(name)}"))(command)
        return typer.main.get_command(app)


app = typer.Typer(help="Measure how well edits do.", no_args_is_help=True, cls=Evaluators)


def one(name: str) -> Callable[..., None]:
    """The command of an evaluator."""
    from evaluation.evaluators import EVALUATORS

    evaluator = EVALUATORS[name]

    def command(out: Path, fresh: bool, as_json: bool, **values: Any) -> None:
        from apps.files import results_in, to_json
        from apps.progress import track
        from evaluation.frame import measured

        config = evaluator.config.build(given(values))
        with results_in(out):
            report, known = measured(evaluator, config, out, fresh=fresh, progress=partial(track, what=name))
        if as_json:
            print(to_json(report.to_dict()))
            return
        show(evaluator, report, out / f"{name}.md", known)

    return with_options(command, evaluator.config)


def everything() -> Callable[..., None]:
    from evaluation.everything import EverythingConfig

    def command(out: Path, fresh: bool, as_json: bool, **values: Any) -> None:
        from apps.files import results_in, to_json
        from apps.progress import track
        from evaluation.evaluators import EVALUATORS
        from evaluation.everything import draw, plan, summarise
        from evaluation.frame import measured, write
        from hooks import AudioSteerError

        config = EverythingConfig.build(given(values))
        config.dataset.check()  # before a model is opened
        planned, left_out = plan(config, EVALUATORS.all().values())
        reports: dict[str, Report] = {}
        failed: dict[str, str] = {}
        with results_in(out):
            for name, job in planned.items():
                progress = partial(track, what=name)
                try:
                    reports[name], known = measured(
                        job.evaluator, job.config, out, name, fresh=fresh, progress=progress
                    )
                except AudioSteerError as error:
                    failed[name] = str(error)
                    log.error(f"{name}: {error}")
                    continue
                if not as_json:
                    show(job.evaluator, reports[name], out / f"{name}.md", known)
            if not reports:
                raise typer.Exit(FAILED)
            model = next(iter(reports.values())).about["settings"]["model"]
            minutes = {name: report.about["minutes"] for name, report in reports.items()}
            about = {"model": model, "minutes": minutes, "left out": left_out, "failed": failed}
            summary = summarise(model, reports, planned, about)
            write(summary, out, "summary", draw(reports, planned, summary.title))
        if as_json:
            print(to_json(summary.to_dict()))
        else:
            summary.print()
            show_left_out(summary)
        raise typer.Exit(FAILED if failed else 0)

    return with_options(command, EverythingConfig)


def required(name: str) -> str:
    """The options that an evaluator does not do without, as they are typed."""
    from evaluation.evaluators import EVALUATORS
    from evaluation.everything import EverythingConfig

    config: type[Config] = EverythingConfig if name == EVERYTHING else EVALUATORS[name].config
    names = [field.alias or key for key, field in config.model_fields.items() if field.is_required()]
    return " ".join(f"--{one} {one.upper()}" for one in names)


def show(evaluator: Evaluator[Any], report: Report, table: Path, known: bool) -> None:
    if known:
        print(f"{table.stem}: measured already, with the same settings")
        return
    for part in evaluator.tables(report):
        part.print(intervals=evaluator.intervals)
    if not evaluator.intervals:
        print(f"95 % intervals are in {table}")
    for note in report.about.get("notes", ()):
        print(note)
    show_left_out(report)


def show_left_out(report: Report) -> None:
    for name, why in report.about.get("left out", {}).items():
        print(f"{name}: left out; {why}")


# --- options ---


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Options that were given or have a default: None is none of them."""
    return {name: value for name, value in values.items() if value is not None}


def with_options(command: Callable[..., None], config: type[Config]) -> Callable[..., None]:
    """The command with an option for each field of the config, and its help."""
    options = {name: parameter(name, field) for name, field in config.model_fields.items() if not field.exclude}
    audio = options.pop("audio")
    shared = [
        inspect.Parameter("fresh", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Fresh),
        inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json),
    ]
    out = inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, annotation=Out)
    parameters = [audio, out, *options.values(), *shared]
    required_first = sorted(parameters, key=lambda one: one.default is not inspect.Parameter.empty)
    command.__signature__ = inspect.Signature(required_first)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__doc__ = inspect.getdoc(config)
    return command


def parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """A field as typer takes an option: what pydantic parses from a text is a text here."""
    more = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    default, kind = field.default, field.annotation
    if any(type(one).__name__ == "BeforeValidator" for one in field.metadata):
        kind = list[str] | None if more.get("repeatable") else str | None
        default = text_of(default) if kind == str | None else None
    smallest = next((one.ge for one in field.metadata if hasattr(one, "ge")), None)
    option = typer.Option(
        *([f"--{field.alias}"] if field.alias else []),
        help=field.description,
        min=smallest if kind in (int, int | None) else None,
        rich_help_panel=str(more["panel"]) if "panel" in more else None,
        show_default=default not in (None, "", Path()) and not field.is_required(),
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.is_required() else default,
        annotation=Annotated[kind, option],
    )


def text_of(value: Any) -> str | None:
    """A default as it would be typed."""
    if isinstance(value, tuple | list):
        return ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value) or None
    return str(value) if value else None
