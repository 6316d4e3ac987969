"""Over which electrodes a response is seen: the weight of a feature's TRF at its lag, at each channel of the EEG.

A description of what was found at one channel; nothing is tested here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from evaluation.brain import BrainError, Tracks, t_tests
from evaluation.eeg import BIOSEMI, Reference, excerpt, read_eeg
from evaluation.eeg_dataset import Listening
from evaluation.report import Progress
from evaluation.trf import Lags, Moments, fit, moments


def channel_map(
    rows: Listening,
    tracks: Tracks,
    at_F: Sequence[int],
    lags: Lags,
    ridge: float,
    lengths_s: Mapping[str, float],
    *,
    rate: float,
    band: tuple[float, float],
    reference: Reference,
    progress: Progress = iter,
) -> tuple[tuple[str, ...], Tensor]:
    """Channels, and t over subjects [F, C] of the weights of features [F, T] at the lags of the indices `at_F`, on the
    test runs. The EEG is read file by file again: of all channels it may not fit into memory.

    Raises:
        BrainError: a file that cannot be used, or with other channels than the first.
    """
    heard = [row for row in rows.rows if row.split == "test"]
    channels = read_eeg(heard[0].eeg).channels
    sums: dict[str, Moments] = {}
    for row in progress(heard):
        if read_eeg(row.eeg).channels != channels:
            raise BrainError(f"{row.eeg}: has other channels than {heard[0].eeg}; a map needs the same in all files")
        eeg_CT = torch.from_numpy(
            excerpt(row.eeg, channels, row.start_s, lengths_s[row.run], rate=rate, band=band, reference=reference)
        )
        length = min(eeg_CT.shape[-1], tracks[row.run].shape[-1])
        of_run = moments(tracks[row.run][None, :, :length], eeg_CT[:, :length], lags)
        sums[row.subject] = sums[row.subject] + of_run if row.subject in sums else of_run
    index = torch.arange(len(at_F))
    weights_FCS = torch.stack([fit(total, ridge)[index, torch.tensor(at_F)] for total in sums.values()], dim=-1)
    return channels, t_tests(weights_FCS)[0]


def draw_head(axes: Any, values_C: Sequence[float], channels: Sequence[str]) -> bool:
    """A map on a head, if MNE is there and knows where these channels are."""
    with suppress(ImportError, ValueError, RuntimeError):
        import mne

        montage = mne.channels.make_standard_montage("biosemi128" if set(channels) <= set(BIOSEMI) else "colin27_1005")
        info = mne.create_info(list(channels), 128.0, "eeg")
        info.set_montage(montage, verbose="error")
        mne.viz.plot_topomap(list(values_C), info, axes=axes, show=False)
        return True
    return False


def draw_bars(axes: Any, values_C: Sequence[float], channels: Sequence[str]) -> None:
    axes.bar(range(len(channels)), values_C)
    axes.set_xticks(range(len(channels)), channels, rotation=90, fontsize="x-small")
    axes.set_ylabel("t over subjects")
