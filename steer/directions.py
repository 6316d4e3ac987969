"""Directions of the activation [D] for `AddDirection`, fitted at one or several sites from pairs of sounds or from
labelled ones, by difference of means or by principal component analysis (PCA).

`save_vectors(directions, path)` keeps them for recipes (`add_direction`), with their sites and the model's name.

A sound counts as the mean of its frames. A strength of +1 is the step from sounds without the attribute to those with
it, as far as it goes along the direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

from hooks.capture import capture, wrapped
from hooks.model import AudioModel, Source
from hooks.site import names_of
from steer.errors import EditError
from steer.vectors import ControlVector

By = Literal["means", "pca"]


def directions_from_pairs(
    model: AudioModel | nn.Module,
    pairs: Iterable[tuple[Source, Source]],
    sites: str | Sequence[str],
    by: By = "means",
    name: str = "direction",
) -> dict[str, ControlVector]:
    """{site: direction} from pairs (sound with an attribute, the same without it).

    By "means" it is the mean difference of the pairs; by "pca" its part along the first principal axis of the
    differences (of their second moments: they are not centred).

    Raises:
        EditError: no pair, or no difference.
        SiteError, AudioFileError: as `capture`.
    """
    found = {}
    with wrapped(model) as model:
        for site, mean_ND in sound_means(model, chain.from_iterable(pairs), sites).items():
            difference_ND = mean_ND[0::2] - mean_ND[1::2]
            found[site] = direction(difference_ND.mean(0), difference_ND, by, name, site, model.name)
    return found


def directions_from_labels(
    model: AudioModel | nn.Module,
    sources: Iterable[Source],
    labels: Iterable[bool],
    sites: str | Sequence[str],
    by: By = "means",
    name: str = "direction",
) -> dict[str, ControlVector]:
    """{site: direction} from sounds and whether each has the attribute.

    By "means" it is the difference of both means; by "pca" its part along the first principal axis of all sounds around
    the middle between both means.

    Raises:
        EditError: not a label for each sound, all labels alike, or no difference.
        SiteError, AudioFileError: as `capture`.
    """
    has_N = torch.tensor([bool(label) for label in labels])
    if not has_N.any() or has_N.all():
        raise EditError(f"{name}: a direction from labels needs sounds with the attribute and sounds without it")
    found = {}
    with wrapped(model) as model:
        for site, mean_ND in sound_means(model, sources, sites).items():
            if len(mean_ND) != len(has_N):
                raise EditError(f"{name}: there are {len(has_N)} labels for {len(mean_ND)} sounds")
            with_D, without_D = mean_ND[has_N].mean(0), mean_ND[~has_N].mean(0)
            offsets_ND = mean_ND - (with_D + without_D) / 2
            found[site] = direction(with_D - without_D, offsets_ND, by, name, site, model.name)
    return found


def sound_means(
    model: AudioModel | nn.Module, sources: Iterable[Source], sites: str | Sequence[str]
) -> dict[str, Tensor]:
    """The mean activation of each sound, {site: [N, D]} in fp64 on the CPU.

    Raises:
        EditError: no sound.
        SiteError, AudioFileError: as `capture`.
    """
    rows: dict[str, list[Tensor]] = {site: [] for site in names_of(sites)}
    parts: dict[str, list[Tensor]] = {site: [] for site in rows}
    for captured in capture(model, sources, list(rows)):
        for site, x_BTD in captured.activations.items():
            x_ND = x_BTD.flatten(0, 1).cpu().double()
            parts[site].append(torch.cat([x_ND.sum(0), x_ND.new_tensor([len(x_ND)])]))
            if captured.last:
                total = torch.stack(parts[site]).sum(0)
                rows[site].append(total[:-1] / total[-1])
                parts[site].clear()
    if not all(rows.values()):
        raise EditError("a direction needs at least one sound of each kind")
    return {site: torch.stack(some) for site, some in rows.items()}


def direction(difference_D: Tensor, offsets_ND: Tensor, by: By, name: str, site: str, model: str = "") -> ControlVector:
    """`difference_D`, or by "pca" its part along the first principal axis of `offsets_ND`.

    Raises:
        EditError: nothing of it is left, or there is no such `by`.
    """
    if by == "pca":
        axis_D = torch.linalg.svd(offsets_ND, full_matrices=False).Vh[0]
        difference_D = (difference_D @ axis_D) * axis_D
    elif by != "means":
        raise EditError(f"{name}: a direction is fitted by means or pca, not by {by!r}")
    if not difference_D.any():
        raise EditError(f"{name}: at {site!r} sounds with the attribute and without it do not differ")
    return ControlVector(difference_D.float(), name, site=site, model=model)
