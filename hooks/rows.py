"""Rows of a batch that each have a time of their own.

`at_time` and `sound_until` are one value for a call. Where sounds (or windows of them) are stacked, a family says with
`rows_at` when each of them is, and changes are called once for each group of rows that have the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from hooks.errors import SiteError
from hooks.site import Site
from hooks.timing import Change, now, saying
from hooks.whole import Whole


class Rows:
    """Calls changes row by row of a batch, with those together that have the same (start, end)."""

    def __init__(self, times: Sequence[tuple[float, float]], wholes: Sequence[Whole] | None = None) -> None:
        self.count, self.wholes = len(times), wholes
        self.groups: dict[tuple[float, float], list[int]] = {}
        for row, (start_s, end_s) in enumerate(times):
            self.groups.setdefault((start_s, end_s), []).append(row)
        if not times:
            raise SiteError("rows_at: say the time of one row at least")

    def __call__(self, site: Site, change: Change, x_BTD: Tensor) -> Tensor | None:
        # beams and channels repeat each row
        each, rest = divmod(len(x_BTD), self.count)
        if rest or not each:
            raise SiteError(f"site {site.name!r}: {len(x_BTD)} rows, but rows_at tells the times of {self.count}")
        if len(self.groups) == 1:
            ((time, rows),) = self.groups.items()
            with self._group(time, rows):
                return change(x_BTD)
        parts, order, changed = [], [], False
        for time, rows in self.groups.items():
            places = [row * each + beam for row in rows for beam in range(each)]
            old_BTD = x_BTD[places]
            with self._group(time, rows):
                new_BTD = change(old_BTD)
            if new_BTD is not None and new_BTD.shape != old_BTD.shape:
                raise SiteError(
                    f"site {site.name!r}: the change has shape {list(new_BTD.shape)}, "
                    f"the rows at {time[0]:g} s {list(old_BTD.shape)}"
                )
            changed = changed or new_BTD is not None
            parts.append(old_BTD if new_BTD is None else new_BTD)
            order += places
        return torch.cat(parts)[torch.tensor(order).argsort()] if changed else None

    def _group(self, time: tuple[float, float], rows: Sequence[int]) -> AbstractContextManager[None]:
        """The moment of some of the rows."""
        wholes = None if self.wholes is None else tuple(self.wholes[row] for row in rows)
        return saying(start_s=time[0], end_s=time[1], carry=None, wholes=wholes)


def rows_at(
    times: Sequence[tuple[float, float]], wholes: Sequence[Whole] | None = None
) -> AbstractContextManager[None]:
    """Say when each row of the batch is that the model gets inside this block: (start, end of its sound).

    Both are seconds of the row's own recording, as in `at_time` and `sound_until`, which hold inside changes alone.
    A site may have several rows for each, one behind the other. `wholes` are the recordings that they are parts of.

    Raises:
        SiteError: no rows; in the forward pass, if a site has another number of rows.
    """
    return saying(rows=Rows(times, wholes))


def current_rows() -> Rows | None:
    """What `rows_at` said, or None."""
    rows = now().rows
    return rows if isinstance(rows, Rows) else None
