from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluation.seeds import StabilityError, seeds_in
from steer.sae import SAE, SAEInfo


def saved(folder: Path, seed: int, model: str = "listener", site: str = "ear.0", d_sae: int = 16) -> None:
    SAE(4, d_sae, "relu", info=SAEInfo(model=model, site=site)).save(folder / f"seed-{seed}")


def test_seeds_lie_in_a_folder_a_site(tmp_path: Path) -> None:
    for site in ("encoder.10", "encoder.9"):
        for seed in (10, 9):
            saved(tmp_path / site, seed, site=site)
    (tmp_path / "activations").mkdir()  # what else a training leaves
    found = seeds_in(tmp_path)
    assert [(site, len(saes)) for site, saes in found.items()] == [("encoder.9", 2), ("encoder.10", 2)]


def test_seeds_that_do_not_belong_together(tmp_path: Path) -> None:
    def failing(site: str) -> str:
        with pytest.raises(StabilityError) as caught:
            seeds_in(tmp_path / site)
        (line,) = str(caught.value).splitlines()
        return line

    assert "no SAEs of several seeds there; they would be in SITE/seed-N/cfg.json" in failing("none")
    saved(tmp_path / "one" / "ear.0", 0)
    assert failing("one") == "ear.0: stability compares SAEs of several seeds, there is 1"
    unlike: list[tuple[dict[str, Any], str]] = [
        ({"d_sae": 8}, "seed-1: no seed of the same training as seed-0; it is 4 -> 8, relu, that one is 4 -> 16, relu"),
        ({"site": "ear.1"}, "ear.0: one of the SAEs says that it is for site 'ear.1'"),
        ({"model": "other"}, "ear.0: the SAEs are of several models: listener and other"),
    ]
    for number, (change, line) in enumerate(unlike):
        saved(tmp_path / f"{number}" / "ear.0", 0)
        saved(tmp_path / f"{number}" / "ear.0", 1, **change)
        assert failing(f"{number}").endswith(line)
