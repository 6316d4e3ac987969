"""Reports of several sites in one: a row for each site and thing measured, shown as a table with a row a site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evaluation.figures import Panel, finish, whiskers
from evaluation.report import Cell, Interval, Report, Row, TableRow

SITE, ALL = "site", "all"


def joined(reports: Mapping[str, Report], title: str) -> Report:
    """One report of those of several sites, with a column `site`; what is equal in all `about` stands once. The report
    of a single site stays as it is."""
    if len(reports) == 1:
        return next(iter(reports.values()))
    abouts = {site: dict(report.about) for site, report in reports.items()}
    first = next(iter(abouts.values()))
    shared = {key: value for key, value in first.items() if all(one.get(key) == value for one in abouts.values())}
    own = {site: {key: value for key, value in one.items() if key not in shared} for site, one in abouts.items()}
    rows = [{SITE: site, **row} for site, report in reports.items() for row in report.rows]
    clips = [{SITE: site, **clip} for site, report in reports.items() for clip in report.clips]
    return Report(title, rows, clips, {**shared, "sites": own})


def by_site(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """{site: its rows}; rows without the column are of one site, ""."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.get(SITE, ""), []).append(row)
    return found


def column_of(rows: Sequence[Row]) -> Callable[[Row], str | None]:
    """What a row is called in a table with a row a site: the mean of a kind, or the only concept of one."""
    site, *_ = by_site(rows).values()
    count = Counter(row["concept"].partition("=")[0] for row in site if "=" in row["concept"])

    def name_of(row: Row) -> str | None:
        kind, mean, _ = row["concept"].rpartition("mean of ")
        if mean:
            return kind.removesuffix(": ") or ALL
        return row["concept"] if count[row["concept"].partition("=")[0]] == 1 else None

    return name_of


def a_row_a_site(title: str, rows: Sequence[Row], name_of: Callable[[Row], str | None], column: str) -> Report:
    """A table with a row for each site and a column for each name that `name_of` gives to a row (None: left out)."""
    cells = {
        site: {name: row[column] for row in some if (name := name_of(row)) is not None}
        for site, some in by_site(rows).items()
    }
    names = list(dict.fromkeys(name for some in cells.values() for name in some))
    table: list[TableRow] = [{SITE: site, **{name: some.get(name) for name in names}} for site, some in cells.items()]
    return Report(title, [dict(row) for row in table])


def lines(
    title: str,
    unit: str,
    table: Report,
    dashed: Report | None = None,
    *,
    scale: float = 100,
    dashes: str = "control",
) -> Panel:
    """A line for each column of a table with a row a site, with its 95 % intervals; `dashed` is a second such table.

    The mean of all kinds is left out beside those of each.
    """

    def draw(axes: Any) -> None:
        sites = [str(row[SITE]) for row in table.rows]
        names = [name for name in table.rows[0] if name != SITE]
        names = [name for name in names if name != ALL or len(names) == 1]
        for index, name in enumerate(names):
            colour = f"C{index % 10}"
            places, shown = values_of(table, name)
            heights = [scale * value_of(one) for one in shown]
            axes.plot(places, heights, color=colour, marker="o", markersize=4, label=name)
            if all(isinstance(one, Interval) for one in shown):
                reach = whiskers(shown, scale)
                axes.errorbar(places, heights, yerr=reach, fmt="none", ecolor=colour, elinewidth=1, alpha=0.6)
            if dashed is not None and name in dashed.rows[0]:
                places, shown = values_of(dashed, name)
                label = dashes if name == names[-1] else None
                heights = [scale * value_of(one) for one in shown]
                axes.plot(places, heights, color=colour, linestyle=":", linewidth=1, label=label)
        axes.set_xticks(range(len(sites)), sites, rotation=0 if len(sites) < 8 else 45)
        axes.set_ylabel(unit)
        finish(axes, title, "y", legend=False)
        axes.legend(frameon=False, fontsize="small", ncols=2)

    return 12, draw


def values_of(table: Report, name: str) -> tuple[list[int], list[Any]]:
    """The places of rows that have a value, and these."""
    found = [(place, row[name]) for place, row in enumerate(table.rows) if row.get(name) is not None]
    return [place for place, _ in found], [value for _, value in found]


def value_of(cell: Cell) -> float:
    return cell.value if isinstance(cell, Interval) else float(cell or 0)
