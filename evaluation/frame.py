"""`Evaluator`: what every evaluation is made of, and how its result is kept and found again."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from evaluation.config import Config, EvaluationError, Subject
from evaluation.dataset import Dataset
from evaluation.figures import Panel
from evaluation.report import Progress, Report, TableRow
from hooks.errors import require
from hooks.files import whole_file, write_text
from steer.steered import SteeredModel

C = TypeVar("C", bound=Config)
CODE = ("hooks", "steer", "evaluation")
"""Packages whose code a result depends on."""


def is_for_all(subject: Subject) -> str:
    return ""


def as_it_is(report: Report) -> list[Report]:
    return [report]


@dataclass(frozen=True)
class Evaluator(Generic[C]):
    """An evaluation, `steer evaluate NAME`.

    Attributes:
        name: what it is called, in lower case with hyphens.
        config: its options; the docstring is the help of the command.
        run: measures; `Progress` goes over the list of what is done one by one.
        figure: a matplotlib figure of a report, or None.
        headline: the main numbers of a report, as rows for the summary of `steer evaluate all`.
        panels: what the summary's figure shows of all reports of this evaluator, by their names.
        tables: how a report is shown in a terminal; `intervals` says whether they are shown.
        suits: why a model or its SAEs cannot be evaluated by it, or "" where they can.
        plan: what `steer evaluate all` measures with it, given its options, with the `subject` open; by default one
            result with the options that all evaluators share.
        extras: pairs of a package that it needs and the extra that brings it.
    """

    name: str
    config: type[C]
    run: Callable[[C, Progress], Report]
    figure: Callable[[Report], Any] = lambda report: None
    headline: Callable[[Report], Sequence[TableRow]] = lambda report: ()
    panels: Callable[[Mapping[str, Report]], list[Panel]] = lambda reports: []
    tables: Callable[[Report], list[Report]] = as_it_is
    intervals: bool = True
    suits: Callable[[Subject], str] = is_for_all
    plan: Callable[[Any], Mapping[str, C] | str] | None = None
    extras: tuple[tuple[str, str], ...] = ()

    def check_extras(self) -> None:
        """Raises MissingExtraError: better before the work than after it."""
        for package, extra in self.extras:
            require(package, extra)

    def planned(self, shared: Config) -> Mapping[str, C] | str:
        """{name of a result: its options} for `steer evaluate all`, or why there is nothing to measure."""
        if why_not := self.suits(shared.subject):
            return why_not
        if self.plan is not None:
            return self.plan(shared)
        return {self.name: self.config(**common(shared))}


def common(shared: Config, **more: Any) -> dict[str, Any]:
    """The fields that all evaluators have."""
    return {name: getattr(shared, name) for name in Config.model_fields} | more


def measured(
    evaluator: Evaluator[C],
    config: C,
    out: Path,
    name: str = "",
    *,
    fresh: bool = False,
    progress: Progress = iter,
) -> tuple[Report, bool]:
    """The report that `out` holds if it was measured with the same options, models, recordings and code, unless
    `fresh`; else a new one, written there as NAME.json, NAME.md and NAME.png. And whether it was there already.

    Raises:
        AudioSteerError: it could not be measured, or not written.
    """
    name = name or evaluator.name
    evaluator.check_extras()
    config = config.model_copy(update={"subject": config.open(), "out": out})
    settings = depends_on(evaluator, config)
    if not fresh and (known := kept(out / f"{name}.json", settings)):
        return known, True
    began = time.monotonic()
    report = evaluator.run(config, progress)
    minutes = round((time.monotonic() - began) / 60, 2)
    report.about = {**report.about, "settings": settings, "minutes": minutes}
    write(report, out, name, evaluator.figure(report))
    return report, False


def kept(path: Path, settings: Mapping[str, Any]) -> Report | None:
    try:
        report = Report.load(path)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is missing, or not a report
    return report if report.about.get("settings") == settings else None


def write(report: Report, out: Path, name: str, drawn: Any = None) -> None:
    """NAME.png if there is a figure, NAME.md, and NAME.json last: where that is, all are.

    Raises:
        EvaluationError: one of them cannot be written.
    """
    try:
        if drawn is not None:
            with whole_file(out / f"{name}.png") as partial:
                drawn.savefig(partial, format="png")
        write_text(out / f"{name}.md", report.markdown() + "\n")
        with whole_file(out / f"{name}.json") as partial:
            report.save(partial)
    except OSError as error:
        raise EvaluationError(f"{out / name}: could not be written ({error.strerror or error})") from error


# --- what a result depends on ---


def depends_on(evaluator: Evaluator[C], config: C) -> dict[str, Any]:
    """All of it, as plain values: the options, and digests of models, files, recordings and code."""
    options = config.model_dump(mode="json", exclude={"audio", "device"})
    named = [value for key, value in options.items() if key not in Config.model_fields]
    subject = config.subject
    model = subject.model if isinstance(subject, SteeredModel) else subject
    saes = subject.saes if isinstance(subject, SteeredModel) else {}
    values = {
        "evaluator": evaluator.name,
        **options,
        "model": model.name,
        "sae": {site: digest_of_module(sae) for site, sae in saes.items() if isinstance(sae, nn.Module)},
        "weights": digest_of_module(model.module),
        "files": {path: digest_of_files(path) for path in paths_in(named)},
        "recordings": digest_of_recordings(config.dataset, subsets_of(config)),
        "code": digest_of_code(evaluator.run.__module__),
    }
    return json.loads(json.dumps(values))


def subsets_of(config: Config) -> list[str]:
    """Names of the subsets that are used; none where all may be."""
    subsets = list(getattr(config, "subsets", ()))
    return [*subsets, *getattr(config, "sae_subsets", ())] if subsets else []


def digest_of_module(module: nn.Module) -> str:
    """Of a model or an SAE: what it is and all its weights."""
    digest = hashlib.blake2b(repr(module).encode(), digest_size=12)
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        # numpy has no bfloat16
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def paths_in(values: Any) -> list[str]:
    """Files and folders among option values."""
    if isinstance(values, list | tuple):
        return [path for value in values for path in paths_in(value)]
    return [values] if isinstance(values, str) and values and Path(values).exists() else []


def digest_of(files: Iterable[tuple[str, Path]]) -> str:
    """Of files and their names."""
    digest = hashlib.blake2b(digest_size=12)
    for name, file in files:
        digest.update(name.encode() + file.read_bytes())
    return digest.hexdigest()


def digest_of_files(path: str) -> str:
    """Of a file, or of all files in a folder, with their names."""
    root = Path(path)
    files = sorted(root.rglob("*")) if root.is_dir() else [root]
    return digest_of((str(file.relative_to(root)), file) for file in files if file.is_file())


def digest_of_recordings(dataset: Dataset, subsets: Sequence[str] = ()) -> str:
    """Of the manifests, intervals and sound files of these subsets, or of all."""
    found = []
    for subset in sorted(set(subsets) & set(dataset.subsets) or dataset.subsets):
        folder = dataset.manifest(subset).parent
        found += [(name, file) for name in dataset.files(subset) if (file := folder / name).is_file()]
    return digest_of(found)


@cache
def digest_of_code(module: str) -> str:
    """Of AudioSteer's packages that measure, and of the module of an evaluator that is from elsewhere."""
    files = [file for name in CODE for folder in import_module(name).__path__ for file in Path(folder).rglob("*.py")]
    if module.partition(".")[0] not in CODE and (source := inspect.getsourcefile(import_module(module))):
        files.append(Path(source))
    return digest_of((file.name, file) for file in sorted(files))
