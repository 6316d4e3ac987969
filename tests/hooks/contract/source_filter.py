from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from hooks.networks.source_filter import SourceFilter, SourceFilterConfig
from tests.hooks.contract.case import PUBLISHED, Case, Way

CONFIG = (
    SourceFilterConfig()
    if PUBLISHED
    else SourceFilterConfig(
        dimension=8,
        encoder_width=16,
        encoder_layers=2,
        decoder_width=16,
        decoder_layers=3,
        pitch_channels=2,
        bands=16,
    )
)


def save(module: SourceFilter, folder: Path) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "source_filter", **module.config.to_dict()}))
    save_file(module.state_dict(), folder / "model.safetensors")
    return str(folder)


WAYS = {
    "forward": Way(lambda model, audio_BCN: model(audio_BCN[:, 0])),
    "encode": Way(lambda model, audio_BCN: model.encode(audio_BCN), ("pitch", "encoder.*")),
    "decode": Way(lambda model, z_BTD: model.decode(z_BTD), ("latent", "decoder.*"), given=lambda m, x: m.encode(x)),
}
CASES = [Case("source-filter", lambda: SourceFilter(CONFIG), WAYS, save)]
