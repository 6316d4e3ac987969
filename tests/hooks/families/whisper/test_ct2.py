"""Whispers in folders of CTranslate2: weights of every type, and files that are no Whisper's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from apps.cli import main
from hooks import ModelError, open_model
from hooks.families.whisper import WhisperPackage
from tests.ct2_files import ALIASES, HOW, ct2_folder, packed, stored, tiny_module, variables_of

pytest.importorskip("whisper", reason="extra whisper")


@pytest.fixture
def module() -> Any:
    return tiny_module(layers=2)


@pytest.fixture
def variables(module: Any) -> dict[str, Tensor]:
    return variables_of(module)


def opened(folder: Path, variables: dict[str, Tensor], aliases: dict[str, str] | None = None) -> WhisperPackage:
    (folder / "model.bin").write_bytes(packed(variables, ALIASES if aliases is None else aliases))
    model = open_model(f"ct2:{folder}")
    assert isinstance(model, WhisperPackage)
    return model


class TestAWhisper:
    def test_it_is_the_same_model_bit_for_bit(self, module: Any, tmp_path: Path) -> None:
        model = open_model(ct2_folder(tmp_path, module))
        assert isinstance(model, WhisperPackage)
        assert model.name == str(tmp_path)
        assert not model.module.training
        assert model.module.dims == module.dims
        state = model.module.state_dict()
        assert state.keys() == module.state_dict().keys()
        for name, value in module.state_dict().items():
            assert state[name].dtype == torch.float32
            torch.testing.assert_close(state[name], value, rtol=0, atol=0)
        assert list(model.sites) == ["encoder.conv", "encoder.0", "encoder.1", "encoder.norm", "decoder.0", "decoder.1"]

    @pytest.mark.parametrize("how", HOW[1:])
    def test_other_types_are_close(self, how: str, module: Any, tmp_path: Path) -> None:
        model = open_model(ct2_folder(tmp_path, module, how))
        mel, tokens = torch.randn(1, 4, 24), torch.tensor([[3, 1, 4]])
        with torch.no_grad():
            theirs, ours = module(mel, tokens), model.module(mel, tokens)
        assert ours.dtype == torch.float32
        assert 0 < (theirs - ours).abs().max() < 0.1 * theirs.std()

    def test_every_way_to_name_it(self, module: Any, tmp_path: Path) -> None:
        folder = ct2_folder(tmp_path / "a", module)
        for name in (folder, str(folder), f"ct2:{folder}", f"ct2:{folder}/model.bin"):
            assert open_model(name).name == str(name)
        (folder / "config.json").unlink()
        open_model(folder)
        (folder / "config.json").write_text("{}")
        open_model(folder)

    def test_heads_that_time_words(self, module: Any, tmp_path: Path) -> None:
        folder = ct2_folder(tmp_path, module)
        (folder / "config.json").write_text('{"alignment_heads": [[0, 3], [1, 1], [1, 2]]}')
        model = open_model(folder)
        assert model.module.alignment_heads.indices().T.tolist() == [[0, 3], [1, 1], [1, 2]]
        assert "alignment_heads" not in model.module.state_dict()
        # the package's own choice where nothing is said
        (folder / "config.json").unlink()
        heads = open_model(folder).module.alignment_heads
        assert torch.equal(heads.to_dense(), module.alignment_heads.to_dense())

    def test_older_files_lack_positions_and_heads(self, variables: dict[str, Tensor], tmp_path: Path) -> None:
        import whisper

        for name in ("encoder/position_encodings/encodings", "encoder/num_heads", "decoder/num_heads"):
            del variables[name]
        with pytest.raises(ModelError, match="num_heads is 0, and the width 8"):
            opened(tmp_path, variables)
        variables["encoder/num_heads"] = variables["decoder/num_heads"] = torch.tensor(2, dtype=torch.int16)
        model = opened(tmp_path, variables)
        assert model.module.dims.n_audio_ctx == 1500
        torch.testing.assert_close(model.module.encoder.positional_embedding, whisper.model.sinusoids(1500, 8))

    def test_what_else_is_in_the_file_is_left_there(self, variables: dict[str, Tensor], tmp_path: Path) -> None:
        opened(tmp_path, {**variables, "decoder/alignment_layer": torch.tensor(-1, dtype=torch.int16)})
        # of quantised files, ctranslate2 gives the weight another name and its scale none
        opened(tmp_path, stored(variables, "int16"))
        # a projection that is stored again
        opened(tmp_path, {**variables, "decoder/projection/weight": variables["decoder/embeddings/weight"]}, {})


def without(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda variables: variables.pop(name)


def changed(name: str, how: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda variables: variables.update({name: how(variables[name])})


ATTENTION = "decoder/layer_1/self_attention/linear_0"
WRONG: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "no convolution": (without("encoder/conv1/weight"), "no encoder/conv1/weight"),
    "no layers": (without("encoder/layer_0/ffn/linear_0/weight"), "no encoder/layer_0"),
    "no bias": (without("decoder/layer_1/ffn/linear_1/bias"), "no decoder/layer_1/ffn/linear_1/bias"),
    "a flat embedding": (changed("decoder/embeddings/weight", torch.flatten), "has not 2 dimensions"),
    "a narrow one": (changed("decoder/embeddings/weight", lambda x: x[:, 1:]), r"is \[24, 7\], where \[24, 8\]"),
    "rows that are no three maps": (changed(f"{ATTENTION}/weight", lambda x: x[1:]), "is not 3 maps"),
    "a bias of the keys": (changed(f"{ATTENTION}/bias", torch.ones_like), "adds to the keys"),
    "heads": (changed("encoder/num_heads", lambda x: x + 1), "num_heads is 3, and the width 8"),
    "a wide convolution": (changed("encoder/conv1/weight", lambda x: torch.zeros(10**5, 1, 1)), "ask for more numbers"),
    "a long text": (
        changed("decoder/position_encodings/encodings", lambda x: torch.zeros(10**5, 8)),
        "longer than any",
    ),
    "not finite": (changed("encoder/layer_norm/beta", lambda x: x / 0), "not finite"),
    "another projection": (
        lambda variables: variables.update({"decoder/projection/weight": torch.ones(24, 8)}),
        "not the same as decoder/embeddings/weight",
    ),
}


class TestWhatIsNone:
    @pytest.mark.parametrize("what", WRONG)
    def test_is_one_line(self, what: str, variables: dict[str, Tensor], tmp_path: Path) -> None:
        damage, message = WRONG[what]
        damage(variables)
        aliases = {name: "decoder/embeddings/weight" for name in ALIASES if name not in variables}
        with pytest.raises(ModelError, match=message) as caught:
            opened(tmp_path, variables, aliases)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_other_names_do_not_make_a_model_larger(self, variables: dict[str, Tensor], tmp_path: Path) -> None:
        """Hundreds of layers that are all the same one."""
        names = [name for name in variables if "/layer_1/" in name]
        aliases = {name.replace("layer_1", f"layer_{i}"): name for name in names for i in range(2, 400)}
        with pytest.raises(ModelError, match="ask for more numbers than it holds"):
            opened(tmp_path, variables, {**ALIASES, **aliases})

    def test_another_kind_of_model(self, variables: dict[str, Tensor], tmp_path: Path) -> None:
        (tmp_path / "model.bin").write_bytes(packed(variables, kind="TransformerSpec"))
        with pytest.raises(ModelError, match="is a TransformerSpec of CTranslate2, and only Whispers"):
            open_model(tmp_path)

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"there is no .*model\.bin; name the folder"):
            open_model(f"ct2:{tmp_path}")

    @pytest.mark.parametrize(
        "config",
        ["[]", "{", '{"alignment_heads": 3}', '{"alignment_heads": [[0, -1]]}', '{"alignment_heads": [[9, 0]]}'],
    )
    def test_a_damaged_config(self, config: str, module: Any, tmp_path: Path) -> None:
        folder = ct2_folder(tmp_path, module)
        (folder / "config.json").write_text(config)
        for name in (folder, f"ct2:{folder}"):
            with pytest.raises(ModelError, match=r"config\.json"):
                open_model(name)

    def test_a_folder_of_another_library_is_still_that(self, module: Any, tmp_path: Path) -> None:
        folder = ct2_folder(tmp_path, module)
        (folder / "config.json").write_text(json.dumps({"model_type": "whisper"}))
        with pytest.raises(ModelError, match="neither a file of torch nor safetensors"):
            open_model(folder)

    def test_on_the_command_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "model.bin").write_bytes(b"\x06\0\0\0\xff\xff")
        with pytest.raises(SystemExit) as left:
            main(["sites", f"ct2:{tmp_path}"])
        told = capsys.readouterr().err
        assert left.value.code == 2
        assert len(told.strip().splitlines()) == 1
        assert f"{tmp_path}/model.bin" in told
