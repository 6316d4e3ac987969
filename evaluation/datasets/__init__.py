"""Manifests of public corpora: `steer manifest NAME FOLDER -o manifest.csv`.

Each corpus is a module with a function from where it lies to rows for `evaluation.dataset`. An installed package adds
one by an entry point in the group `audiosteer.corpora`.
"""

from __future__ import annotations

from evaluation.datasets.broderick import BRODERICK
from evaluation.datasets.corpus import Corpus, CorpusError
from evaluation.datasets.librispeech import LIBRISPEECH
from evaluation.datasets.ptdb import PTDB
from evaluation.datasets.vctk import VCTK
from evaluation.datasets.vocalset import VOCALSET
from evaluation.datasets.voxprofile import VOXPROFILE
from hooks.extensions import Registry

CORPORA: Registry[Corpus] = Registry(
    "corpus",
    CorpusError,
    {one.name: one for one in (BRODERICK, LIBRISPEECH, PTDB, VCTK, VOCALSET, VOXPROFILE)},
    plural="corpora",
)

__all__ = ["CORPORA"]
