"""What names of SAEs stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer import SAE, SAEInfo
from steer.errors import SAEError
from steer.sae_folders import saes_of


def saved(folder: Path, site: str = "") -> Path:
    return SAE(4, 8, "relu", info=SAEInfo(model="m", site=site)).save(folder)


def test_one_sae_goes_where_it_says_or_is_said(tmp_path: Path) -> None:
    source = str(saved(tmp_path / "one", "encoder.1"))
    (one,) = saes_of(source)
    assert (one.source, one.site, one.model) == (source, "encoder.1", "m")
    assert saes_of(source, "encoder.9")[0].site == "encoder.9"
    assert saes_of(str(saved(tmp_path / "lost")))[0].site == ""


def test_a_folder_of_sites_is_all_of_them_in_order_and_of_seeds_the_first(tmp_path: Path) -> None:
    for site in ("encoder.2", "encoder.10"):
        for seed in (10, 2):
            saved(tmp_path / site / f"seed-{seed}", site)
    saved(tmp_path / "encoder.3")  # it does not say where: its folder does
    (tmp_path / "activations").mkdir()
    (tmp_path / "metrics.json").write_text("{}")
    found = saes_of(str(tmp_path))
    assert [(one.site, one.source) for one in found] == [
        ("encoder.2", str(tmp_path / "encoder.2" / "seed-2")),
        ("encoder.3", str(tmp_path / "encoder.3")),
        ("encoder.10", str(tmp_path / "encoder.10" / "seed-2")),
    ]
    assert [one.source for one in saes_of(str(tmp_path), "encoder.3")] == [str(tmp_path / "encoder.3")]
    with pytest.raises(SAEError, match="encoder.2, encoder.3, encoder.10, none for site 'encoder.7'"):
        saes_of(str(tmp_path), "encoder.7")


def test_the_name_of_a_model_is_all_that_ship_for_it() -> None:
    assert [one.site for one in saes_of("whisper:tiny.en")] == [f"encoder.{layer}" for layer in range(4)]
    assert saes_of("whisper:tiny.en", "encoder.2")[0].source == "whisper:tiny.en/encoder.2"
    assert [one.source for one in saes_of("whisper:tiny.en/encoder.3")] == ["whisper:tiny.en/encoder.3"]


def test_a_folder_without_an_sae_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SAEError, match="no SAE|holds|cfg"):
        saes_of(str(tmp_path))
    with pytest.raises(SAEError, match="there is no SAE"):
        saes_of("nothing/here")
