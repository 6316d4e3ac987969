"""Plots of reports: bars with their 95 % intervals, and what they are to be compared with beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evaluation.report import Interval, Report
from hooks.errors import require

RESULT, OTHERS = "#d1495b", "#8d99a3"
SERIES = ("#30638e", "#d1495b", "#edae49")
"""Measures of equal standing."""
BAR_INCHES = 0.26

Panel = tuple[int, Callable[[Any], None]]
"""How many bars high it is, and what draws it into matplotlib's axes."""


def figure(panels: Sequence[Panel], title: str = "") -> Any:
    """Panels in two columns, as high as their bars need.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "eval")
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    inches = [1.3 + BAR_INCHES * max(height for height, _ in line) for line in lines]
    drawn = Figure(figsize=(6.4 * columns, sum(inches) + 0.4 * bool(title)), dpi=110, layout="constrained")
    grid = drawn.subplots(len(lines), columns, squeeze=False, height_ratios=inches)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for (_, draw), axes in zip(panels, grid.flat, strict=False):
        draw(axes)
    if title:
        drawn.suptitle(title)
    return drawn


def bars(
    title: str,
    unit: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[Interval | None]],
    *,
    scale: float = 100,
    result: Sequence[str] = (),
) -> Panel:
    """Horizontal bars, a group for each name; the first series stands out, or of a single one the names in `result`."""
    thick = 0.8 / len(series)

    def draw(axes: Any) -> None:
        for index, (label, values) in enumerate(series.items()):
            shown = [(place, name, one) for place, (name, one) in enumerate(zip(names, values, strict=True)) if one]
            places = [place + index * thick for place, _, _ in shown]
            widths = [scale * one.value for _, _, one in shown]
            colours = [RESULT if index == 0 and (not result or name in result) else OTHERS for _, name, _ in shown]
            axes.barh(places, widths, 0.95 * thick, color=colours, label=label)
            reach = whiskers([one for _, _, one in shown], scale)
            axes.errorbar(widths, places, xerr=reach, fmt="none", ecolor="black", elinewidth=1, capsize=2)
        axes.set_yticks([place + thick * (len(series) - 1) / 2 for place in range(len(names))], names)
        axes.invert_yaxis()
        finish(axes, title, "x", legend=len(series) > 1)
        axes.set_xlabel(unit)

    return len(names) * len(series), draw


def whiskers(values: Sequence[Interval], scale: float) -> list[list[float]]:
    """Down and up; a resampled statistic may lie to one side of its estimate."""
    return [
        [scale * max(one.value - one.low, 0) for one in values],
        [scale * max(one.high - one.value, 0) for one in values],
    ]


def finish(axes: Any, title: str, along: str, legend: bool) -> None:
    axes.set_title(title, pad=22 if legend else 6)
    axes.grid(axis=along, alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=4,
                    columnspacing=1.2, handlelength=1.4)  # fmt: skip


def false_alarms(report: Report) -> list[Panel]:
    """Of each method how often it hears words where nobody speaks, and its errors where somebody does."""
    names = [row["method"] for row in report.rows]
    return [
        bars(title, unit, names, {"": [row[column] for row in report.rows]}, result=["SAE steering"])
        for column, title, unit in (
            ("false alarms", "Words where nobody speaks", "% of the clips without speech"),
            ("WER", "Word errors where somebody speaks", "WER in %"),
        )
    ]


def removal(reports: Mapping[str, Report]) -> Panel:
    """Of several reports the last line each (the mean, where there are several concepts): what is needed, and what of
    random features."""
    rows = [report.rows[-1] for report in reports.values()]
    series = {name: [row[column] for row in rows] for name, column in (("ranked", "needed"), ("random", "random"))}
    return bars("Features ablated until a concept is gone", "% of the features that fire", list(reports), series)


def downstream(report: Report) -> Panel:
    """What the reconstruction at each site costs, in points."""
    cost = "WER" if "WER" in report.rows[0] else "accuracy"
    rows = report.rows[1:]
    names = [row["site"] if row["seed"] is None else f"{row['site']}, seed {row['seed']}" for row in rows]
    changes = {"": [row["change"] for row in rows]}
    return bars(f"{cost} through the SAE's reconstruction", f"change of the {cost} in points", names, changes, scale=1)


def stability(report: Report) -> Panel:
    """For each site a bar a measure; the dashes are the controls."""
    sites = list(dict.fromkeys(row["site"] for row in report.rows))
    measures = list(dict.fromkeys(row["measure"] for row in report.rows))
    thick = 0.8 / len(measures)

    def draw(axes: Any) -> None:
        for index, (measure, colour) in enumerate(zip(measures, SERIES, strict=False)):
            rows = {row["site"]: row for row in report.rows if row["measure"] == measure}
            places = [place + (index - (len(measures) - 1) / 2) * thick for place in range(len(sites))]
            values = [rows[site]["matched"] for site in sites]
            heights = [100 * value.value for value in values]
            axes.bar(places, heights, 0.9 * thick, color=colour, label=measure)
            axes.errorbar(places, heights, yerr=whiskers(values, 100), fmt="none", ecolor="black", elinewidth=1)
            axes.hlines(
                [100 * rows[site]["control"].value for site in sites],
                [place - thick / 2 for place in places], [place + thick / 2 for place in places],
                color="black", linewidth=2, label=None if index else "control",
            )  # fmt: skip
        axes.set_xticks(range(len(sites)), sites, rotation=0 if len(sites) < 8 else 45)
        axes.set(ylabel="% of the live features", ylim=(0, 100))
        finish(axes, report.title, "y", legend=True)

    return 9, draw


def requested(report: Report) -> list[Panel]:
    """For each attribute the measured change over the requested one, a dot an edit; the line is where they are equal.

    Of a report of `steer evaluate acoustics`.
    """
    made = [row for row in report.clips if row["attribute"] in row["goals"] and not row["left out"]]
    subsets = list(dict.fromkeys(row["subset"] for row in made))
    units = {"loudness": "dB", "brightness": "%", "pitch": "semitones"}
    return [
        changes(attribute, unit, subsets, [row for row in made if row["attribute"] == attribute])
        for attribute, unit in units.items()
        if any(row["attribute"] == attribute for row in made)
    ]


def changes(attribute: str, unit: str, subsets: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Panel:
    scale = 0.01 if attribute == "pitch" else 1.0

    def draw(axes: Any) -> None:
        known = [row for row in rows if row[attribute] is not None]
        wanted = [row["goals"][attribute] for row in rows]
        ends = [min(wanted), max(wanted)]
        axes.plot(ends, ends, color="black", linewidth=0.8, zorder=1)
        step = 0.012 * max(ends[1] - ends[0], 1.0)
        for index, subset in enumerate(subsets):
            some = [row for row in known if row["subset"] == subset]
            # beside each other, as many have the same request
            aside = (index - (len(subsets) - 1) / 2) * step
            places = [row["goals"][attribute] + aside for row in some]
            axes.scatter(places, [scale * row[attribute] for row in some], s=14, alpha=0.7, label=subset, zorder=2)
        axes.set(xlabel=f"requested, {unit}", ylabel=f"measured in the file, {unit}")
        finish(axes, attribute, "both", legend=False)
        axes.legend(frameon=False, fontsize="small", loc="upper left")

    return 12, draw
