"""A Whisper of the `openai-whisper` package in a small file: tokens that were never trained share one row.

A folder with `config.json` (`"architecture": "whisper_compact"` and the fields of whisper's `ModelDimensions`) and
`model.safetensors`: the module's parameters in any float type. There `decoder.token_embedding.weight` has a row for
each token of `vocabulary` (their ids), and a last row that stands for all other tokens. What is opened is the package's
own module with Whisper's whole vocabulary, so that all of the package works on it.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from hooks.errors import ModelError, require
from hooks.families.whisper.package import WhisperPackage
from hooks.family import Family
from hooks.opening import opening, read_config

EMBEDDING = "decoder.token_embedding.weight"
SINUSOIDS = "encoder.positional_embedding"
"""Not in the file: the module makes them."""


def open_folder(folder: Path, name: str) -> WhisperPackage:
    """Raises ModelError where the configuration and the weights do not fit or cannot be read."""
    whisper = require("whisper.model", "whisper")
    with opening(name, "a compact Whisper"):
        module = whisper.Whisper(whisper.ModelDimensions(**read_config(folder)))
        state = load_file(folder / "model.safetensors")
        rows, ids = state.pop(EMBEDDING).float(), state.pop("vocabulary").long()
        state = {key: value.float() for key, value in state.items()}
        state[EMBEDDING] = whole_vocabulary(rows, ids, module.dims.n_vocab)
        absent, unknown = module.load_state_dict(state, strict=False)
    wrong = [*(key for key in absent if key != SINUSOIDS), *unknown]
    if wrong:
        raise ModelError(f"{name}: not a compact Whisper that can be opened (missing or unknown: {wrong[0]})")
    return WhisperPackage(module, name)


def whole_vocabulary(rows_UD: Tensor, ids_U: Tensor, size: int) -> Tensor:
    """Embeddings [size, D] of all tokens: those of `ids` from the rows, in order, all others from the last row."""
    if len(rows_UD) != len(ids_U) + 1:
        raise ValueError(f"{len(rows_UD)} rows for {len(ids_U)} tokens and all others")
    table_VD = rows_UD[-1].repeat(size, 1)
    table_VD[ids_U] = rows_UD[:-1]
    return table_VD


FAMILY = Family("whisper_compact", libraries=("whisper",), extra="whisper", open_folder=open_folder)
