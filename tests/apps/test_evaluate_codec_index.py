"""`steer evaluate codec-index`: the command, by number of codebooks, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation import accents
from evaluation.evaluators.codec_index import CODEC_INDEX, CodecIndexConfig

pytest.importorskip("sklearn", reason="extra eval")
pytest.importorskip("matplotlib", reason="extra eval")

Run = Callable[..., tuple[int, str, str]]
SMALL = ("--q", 1, "--s", "0.1,0.05", "--seeds", 1, "--steps", 20, "--nulls", 1)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """High and low tones by six speakers, who each make both; and more speech without the label."""
    rng = np.random.default_rng(0)
    lines = ["path,split,pitch,speaker,by,text"]
    for index in range(120):
        time = np.arange(2400 + 240 * (index % 5)) / 24_000
        high = index // 2 % 2
        tone = 0.3 * np.sin(2 * np.pi * (880 if high else 220) * time)
        soundfile.write(tmp_path / f"{index}.wav", tone + 0.01 * rng.standard_normal(len(time)), 24_000)
        split = "test" if index % 4 == 3 else "train"
        speaker = f"s{index % 6}"
        lines.append(f"{index}.wav,{split},{('low', 'high')[high]},{speaker},{'abc'[index % 6 // 2]},a")
    (tmp_path / "tones.csv").write_text("\n".join(lines))
    return tmp_path / "tones.csv"


def test_command(steer: Run, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("evaluate", "codec-index", "--audio", manifest, "--label", "pitch", "-o", out, "--codebooks", "1,2")
    code, shown, err = steer(*arguments, *SMALL)
    assert code == 0, err
    assert "Delta F1 of pitch in sparse codes of starter:wavtokenizer" in " ".join(shown.split())
    report = json.loads((out / "codec-index.json").read_text())
    rows = report["rows"]
    assert {row["codebooks"] for row in rows} == {1, 2}
    assert {row["k"] for row in rows if row["q"]} == {13, 7}
    assert {row["features"] for row in rows if row["q"]} == {128}
    assert {row["on"] for row in rows} >= {"u", "z", "position", "magnitude", "PCA", "random SAE: z", "level"}
    whole = [row for row in rows if row["on"] == "u"]
    assert all(row["F1"]["value"] > 0.9 and row["delta F1"]["value"] == 0 for row in whole)  # two tones are easy
    assert set(report["about"]["density"]) == {"1", "2"}
    assert (
        report["about"]["clips of the probes"] + report["about"]["clips of the SAEs"]
        == 90 - report["about"]["clips that stop them"]
    )
    assert (out / "codec-index.png").read_bytes().startswith(b"\x89PNG")
    assert "measured already" in steer(*arguments, *SMALL)[1]


def test_mistakes_are_one_line(steer: Run, manifest: Path, tmp_path: Path) -> None:
    arguments = ("evaluate", "codec-index", "--audio", manifest, "-o", tmp_path / "out", *SMALL)
    for flags, said in (
        (("--label", "pitch", "--clips", 60), "--label pitch: SAEs need 32 clips to train on, and there are "),
        ((), "--label label: the manifests of tones have no such column"),
        (("--label", "text"), "two classes at least; they are all 'a'"),
        (("--label", "by"), "--label by: it is confounded with the speaker"),  # check 7: each speaker has one
        (("--label", "speaker"), "--label speaker: it is confounded with the speaker"),
        (("--label", "pitch", "--codebooks", 9), "--codebooks 9: starter:wavtokenizer has 8"),
        (("--label", "pitch", "--s", 2), "--s 2"),
        (("--label", "pitch", "--site", "none"), "none"),
        (("--label", "pitch", "--model", "starter:asr"), "this is for codecs"),
        (
            ("--label", "pitch", "--model", "starter:codec", "--site", "latent", "--codebooks", 1),
            "has no residual quantiser",
        ),
    ):
        code, _, err = steer(*arguments, *flags)
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err
        assert not (tmp_path / "out").exists()


def test_a_confounded_label_has_it_in_the_title(steer: Run, manifest: Path, tmp_path: Path) -> None:
    arguments = ("evaluate", "codec-index", "--audio", manifest, "--label", "speaker", "-o", tmp_path / "out")
    code, shown, err = steer(*arguments, *SMALL, "--allow-confounded")
    assert code == 0, err
    assert "(confounded with speaker)" in " ".join(shown.split())


def test_what_quick_and_paper_mean(tmp_path: Path) -> None:
    # as the command makes it, which passes its defaults as text
    config = CodecIndexConfig.build(
        {"audio": tmp_path, "quick": True, "q": "3", "s": ".5,.25,.1,.05", "seeds": 3}
    ).settled()
    assert (config.q, config.s, config.seeds, config.clips) == ((3,), (0.25, 0.05), 1, 800)
    assert config.settings().main_nulls == 5
    assert CodecIndexConfig(audio=tmp_path).settled().settings().main_nulls == 20
    assert CodecIndexConfig(audio=tmp_path, nulls=0).settings().main_nulls == 0
    assert CodecIndexConfig(audio=tmp_path, paper=True).settings().paper
    assert "steer evaluate codec-index by itself" in str(CODEC_INDEX.plan and CODEC_INDEX.plan(None))


def test_synthetic_accents(steer: Run, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tones in place of espeak-ng, one for each accent."""

    def tone(text: str, voice: str, speed: int, pitch: int, path: Path) -> None:
        hertz = 880 if voice.startswith("en-gb") else 220
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(4800) / 24_000), 24_000)

    monkeypatch.setattr(accents, "speak", tone)
    monkeypatch.setattr("evaluation.evaluators.codec_index.UTTERANCES", 60)
    out = tmp_path / "out"
    code, shown, err = steer(
        "evaluate", "codec-index", "--audio", manifest, "-o", out, "--synthetic-accents", "--codebooks", 8, *SMALL
    )
    assert code == 0, err
    assert "Delta F1 of synthetic accent" in " ".join(shown.split())
    assert (out / "accents" / "manifest.csv").is_file()
