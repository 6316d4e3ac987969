"""On a Whisper with random weights, whose SAE loses nothing: soft sounds count as non-speech, loud ones as speech."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluation import gate_long, gate_study, texts
from evaluation.conditions import RATE, long_files, samples_of
from evaluation.dataset import LabelledSound
from evaluation.evaluators.gates import keep
from evaluation.gate_fits import ACTIVATION, ALL, BY_SECOND, NOTHING, Study
from evaluation.gate_methods import Decision, by_scores, decide, frequent_texts, thresholded
from evaluation.gate_rows import by_case, row
from evaluation.passes import Kept
from evaluation.texts import Texts
from evaluation.transcripts import Clips, FalseAlarmError, Heard
from hooks import Codec
from steer import AddDirection, SteeredModel
from steer.gate_fit import fit_gate
from steer.gates import Gate, GateProbe
from steer.pooling import LOGS
from steer.recipe import Recipe
from tests.evaluation.test_steering_fit import SHORT, SITES, model, sae

pytest.importorskip("jiwer", reason="extra whisper")
pytest.importorskip("sklearn", reason="extra eval")
pytest.importorskip("matplotlib", reason="extra eval")
SITE = SITES[-1]


def sounds(split: str, count: int = 4) -> Clips:
    generator = torch.Generator().manual_seed(sum(map(ord, split)))

    def some(level: float, name: str, labels: dict[str, str]) -> list[LabelledSound]:
        return [
            LabelledSound(
                level * torch.randn(4000 + 800 * n, generator=generator),
                f"{split}/{name}{n}",
                {"subset": name, "label": "ab"[n % 2], **labels},
            )
            for n in range(count)
        ]

    return Clips(some(0.01, "soft", {}), some(0.3, "loud", {"text": "Hello!"}), split)


@pytest.fixture(scope="module")
def steered() -> SteeredModel:
    torch.manual_seed(0)
    return SteeredModel(model(), {site: sae() for site in SITES}, check=False)


def test_a_study(steered: SteeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_study, "channels", lambda: {"same": lambda samples_N, rng: samples_N})
    monkeypatch.setattr(gate_study, "SNRS_DB", (60.0,))
    monkeypatch.setattr(gate_long, "SECONDS", 0.2)
    monkeypatch.setattr(gate_long, "OVERLAP_S", 0.1)
    sets = (sounds("train"), sounds("valid"), sounds("test"))
    heard: list[str] = []
    listen = texts.listen

    def counted(*arguments: object, **more: object) -> list[Heard]:
        heard.append(str(arguments[1]))
        return listen(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(texts, "listen", counted)

    def study() -> gate_study.Report:
        return gate_study.evaluate(
            steered, *sets, SHORT, ks=(1, 3), synthetic=2, steps=2, draws=1, out=tmp_path, settings="a"
        )[0]

    report = study()
    rows = {(one["case"], one["method"]): one for one in report.rows}
    gated = [f"{name}, fitted shift" for name in (ALL, ACTIVATION, "gate on 3 features")]
    for case in ("clean", "channel: same", "speech in noise, 60 dB"):
        for name in gated:
            one = rows[case, name]
            assert (one["changed"].value, one["gate opens"].value, one["WER change"].value) == (0, 0, 0)
    assert {one["case"] for one in report.rows} > {"class left out: a", "class left out: b"}
    assert ("clean", "gate on 3 random features, draw 1, fitted shift") in rows
    assert next(iter(report.about["features of gates"])) == "gate on 1 features"
    titles = [table.title.rpartition(": ")[2] for table in by_case(report)]
    assert titles[:4] == ["clean", "all clips with speech", "at any threshold", "speech in noise"]
    long = [one for one in report.rows if str(one["case"]).endswith("three minutes")]
    methods = [NOTHING, "gate by window, fitted shift", BY_SECOND, gate_long.LABELLED]
    assert [one["method"] for one in long][:4] == methods
    # again: every transcript is found on disk
    count = len(heard)
    assert count and str(study().rows) == str(report.rows) and len(heard) == count  # no number is not itself


def test_what_is_put_together_is_what_the_gated_edit_gives(steered: SteeredModel) -> None:
    fit, test = sounds("train"), sounds("test")
    edit = AddDirection(4 * torch.randn(16))
    study = Study(
        steered, fit, fit, test, SITE, Texts(steered, SHORT, None, ""), Kept(None, ""), 0, iter, {"edit": (edit,)}
    )
    both = study.passes.of(fit.all)
    for examples, k in ((both[0], 2), (both[1], None)):
        gate = fit_gate(examples, [True] * 4 + [False] * 4, k)
        seen = study.passes.of(test.all)[examples.on == "activation"]
        decision = decide(gate, seen, [sound.name for sound in test.all])
        assert [decision.opens(sound) for sound in test.all] == [True] * 4 + [False] * 4
        with steered.edit(edit, site=SITE, when=gate):
            expected = [str(steered.model.transcribe(sound.source, **SHORT)) for sound in test.all]  # type: ignore[attr-defined]
        assert [one.text for one in study.heard(test.all, decision, "edit")] == expected
        assert expected[:4] != [one.text for one in study.heard(test.silent, None)]


def test_labelled_speech_alone() -> None:
    clips = sounds("test")
    files = long_files(clips.speech, clips.silent, seconds=2.0)
    cut = gate_long.labelled_speech(files)
    assert cut.keys() == {file.name for file in files}
    for file in files:
        assert file.intervals and len(samples_of(cut[file.name])) < len(samples_of(file))
        expected = [samples_of(file)[round(a * RATE) : round(b * RATE)] for a, b, _ in file.intervals]
        assert torch.equal(samples_of(cut[file.name]), torch.cat(expected))


def test_a_file_of_other_settings_or_cut_off_is_not_used(steered: SteeredModel, tmp_path: Path) -> None:
    clips, path = sounds("test").silent[:2], tmp_path / "texts.jsonl"
    first = Texts(steered, SHORT, path, "a").of(NOTHING, clips)
    assert Texts(steered, SHORT, path, "a").known.keys() == {(NOTHING, clip.name) for clip in clips}
    path.write_text(path.read_text()[:-20])
    cut = Texts(steered, SHORT, path, "a")
    assert len(cut.known) == 1 and cut.of(NOTHING, clips) == first
    assert not Texts(steered, SHORT, path, "b").known


def test_guards_without_a_gate() -> None:
    unsure = Heard("you", ("you",), 0.7, 1.0, -1.5)
    assert thresholded(unsure, 0.6).words == () and thresholded(unsure, 0.6, -1.0).words == ()
    assert thresholded(unsure, 0.8) == unsure and thresholded(unsure, 0.6, -2.0) == unsure
    texts = [Heard("", words, None, 1.0) for words in (("you",), ("thank", "you"), ("you",), ())]
    assert frequent_texts(texts, 1) == {("you",)} and len(frequent_texts(texts)) == 2
    clips = sounds("test", 2)
    scores = {sound.name: value for sound, value in zip(clips.all, (0.1, 0.4, 0.5, 0.9), strict=True)}
    low = by_scores(scores, clips.speech)
    assert [low.opens(sound) for sound in clips.all] == [True, True, False, False]
    assert low.threshold == pytest.approx(-0.45)


def test_counts_of_a_row() -> None:
    clips = sounds("test", 2)
    plain = [
        Heard("you", ("you",), None, 30.0),
        Heard("", (), None, 30.0),
        *[Heard("hello", ("hello",), None, 1.0)] * 2,
    ]
    heard = [Heard("", (), None, 30.0), *plain[1:3], Heard("", (), None, 1.0)]
    opened = Decision({sound.name: value for sound, value in zip(clips.all, (1, -1, -1, 1), strict=True)}, 0.0)
    found = row("clean", "mine", "", clips.silent, clips.speech, heard, plain, opened)
    assert found["with words"] == "0 of 2"
    wanted = {"gone": 1, "words/min": 0, "WER": 0.5, "WER change": 50, "changed": 0.5, "gate opens": 0.5}
    assert {name: found[name].value for name in wanted} == pytest.approx(wanted)
    assert row("x", "mine", "", clips.silent, [], plain[:2], plain[:2], None)["WER"] is None


def test_a_model_without_words_or_an_sae_is_refused(steered: SteeredModel) -> None:
    clips = sounds("test")
    with pytest.raises(FalseAlarmError, match="writes no words"):
        gate_study.evaluate(SteeredModel(Codec(torch.nn.Identity(), name="c"), {}), clips, clips, clips, {})
    with pytest.raises(FalseAlarmError, match="no SAE at encoder.7"):
        gate_study.evaluate(steered, clips, clips, clips, {}, site="encoder.7")


def test_the_gate_and_the_shift_are_a_recipe(tmp_path: Path) -> None:
    probe = GateProbe(torch.ones(2, 3), 0.5, [4, 7, 9], LOGS, "encoder.3", "starter:asr")
    gate, shift = Gate(probe, 0.25), AddDirection(torch.arange(4.0))
    (note,) = keep({"clip": shift.conditional(gate)}, Recipe.build({"model": "starter:asr"}), tmp_path)
    assert note.endswith("clip.yaml")
    recipe = Recipe.load(tmp_path / "clip.yaml")
    assert (recipe.model, recipe.saes) == ("starter:asr", {"encoder.3": "starter:asr/encoder.3"})
    ((edit,),) = recipe.edits_for().values()
    assert isinstance(edit, AddDirection) and torch.equal(edit.vector, shift.vector)
    assert edit.when == gate
