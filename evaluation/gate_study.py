"""`steer evaluate gates`: words that a recogniser invents where nobody speaks, and gates that take them away.

A gate reads a site of the encoder and opens on sounds without speech; behind it an edit has the recogniser write
nothing. Gates are fitted on training clips (of non-speech also on sounds that are made here), their thresholds and the
strengths of edits are chosen on validation clips, and everything is measured on test clips that had no part in that.

A sound on which a gate is shut is transcribed as without it, to the bit; one on which it is open as by the edit alone.
So each sound is transcribed once as it is, and once by an edit if some gate opens on it, and all gates share that.

Side by side: gates on all features of the SAE, on k of them, on the activation itself, and on random features; behind
the gate a fitted shift, the difference of means, and ranked features times alpha (AudioSAE, arXiv 2602.05027), these
also without the gate; openai-whisper's thresholds, Silero's voice activity detector, and the suppression of the texts
that are invented most often. The thresholds of gates and of Silero are the lowest at which no validation clip with
speech is lost; Whisper's own are the best of a grid at which validation clips have at most one word error more.

Hard cases (`evaluation.conditions`): speech in noise; speech and non-speech through the same channel; each class of
sounds left out of the fit; sung vowels; files of three minutes in which speech and non-speech follow each other, with a
gate that decides by the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.conditions import SNRS_DB, channels, in_noise, through
from evaluation.dataset import LabelledSound
from evaluation.gate_cases import case, clean, left_out_classes
from evaluation.gate_fits import ACTIVATION, ALL, BY_SECOND, Study, choose_edits, fit_gates
from evaluation.gate_long import fit_by_second, long_case
from evaluation.gate_points import all_speech
from evaluation.gate_vad import best_vad
from evaluation.nonspeech import SAMPLE_RATE, Nonspeech
from evaluation.passes import Kept
from evaluation.report import Progress, Report
from evaluation.texts import Texts
from evaluation.transcripts import Clips, FalseAlarmError
from hooks.clip import Clip
from hooks.model import Transcriber
from steer.edits import AddDirection
from steer.steered import SteeredModel

KS = (1, 3, 10, 30)
CASES = ("clean", "speech", "sung", "noise", "channels", "classes", "long")


def evaluate(
    steered: SteeredModel,
    train: Clips,
    valid: Clips,
    test: Clips,
    options: Mapping[str, Any],
    *,
    speech: Sequence[LabelledSound] = (),
    sung: Sequence[LabelledSound] = (),
    site: str | None = None,
    ks: Sequence[int] = KS,
    cases: Sequence[str] = CASES,
    synthetic: int = 70,
    steps: int = 40,
    draws: int = 3,
    by_second: bool = True,
    seed: int = 0,
    out: Path | None = None,
    settings: str = "",
    progress: Progress = iter,
) -> tuple[Report, dict[str, AddDirection]]:
    """Fit on `train` and `synthetic` sounds made here, choose on `valid`, measure on `test`. Also gives the fitted
    shifts with their gates, on the largest k: `clip` decides for whole sounds, `second` by the second.

    `speech` are all clips with speech of the test split, also those without a text, and `sung` those of a voice that
    says nothing; gates are not fitted on any such.

    Transcripts are kept in `out` as they come, for the next call of the same `settings`.

    Raises:
        FalseAlarmError: a model that writes no words, or a site without an SAE.
        AudioFileError: a clip that cannot be read.
        MissingExtraError: openai-whisper, jiwer or scikit-learn is not installed.
    """
    model = steered.model
    if not isinstance(model, Transcriber):
        raise FalseAlarmError(f"{model.name} is a {model.kind} and writes no words; pass a recogniser")
    encoder = [name for name in model.sites if name in steered.saes and not name.startswith("decoder")]
    if not encoder or site not in (None, *encoder):
        raise FalseAlarmError(f"there is no SAE at {site or 'a site of the encoder'}; there are some at {encoder}")
    site = site or encoder[-1]
    texts = Texts(steered, dict(options), out / "texts.jsonl" if out else None, settings)
    kept = Kept(out / "passes.safetensors" if out else None, settings)
    study = Study(steered, train, valid, test, site, texts, kept, seed, progress)
    made = Nonspeech(seed).sounds(synthetic)
    silent = [*train.silent]
    silent += [
        LabelledSound(Clip(wave_N[None], SAMPLE_RATE), f"synthetic/{number}", {"subset": "synthetic", "label": kind})
        for number, (kind, wave_N) in enumerate(made)
    ]
    fit = Clips(silent, train.speech, train.split)
    seen = {clips.split: study.passes.of(clips.all, progress) for clips in (fit, valid, test)}
    gates, decisions = fit_gates(study, fit, seen, ks, draws)
    shift = choose_edits(study, fit, seen[fit.split], decisions[valid.split][ALL], options, steps)
    timed = fit_by_second(study, fit.silent, max(ks), steps * 5 // 2) if by_second else None
    vad = best_vad(study)
    rows = clean(study, decisions, vad) if "clean" in cases else []
    hard = {name: gate for name, gate in gates.items() if name in (ALL, ACTIVATION, f"gate on {max(ks)} features")}
    if "speech" in cases:
        few = {name: gate for name, gate in gates.items() if "random" not in name and name != BY_SECOND}
        rows += all_speech(study, few, vad, speech or test.speech)
    if "sung" in cases and sung:
        rows += case(study, "sung vowels", sung, [], hard, vad)
    if "noise" in cases:
        noises = [sound for sound in test.silent if sound.subset in ("noise_rir", "esc10")] or list(test.silent)
        for snr in SNRS_DB:
            sounds = in_noise(test.speech, noises, snr, seed)
            rows += case(study, f"speech in noise, {snr:g} dB", [], sounds, hard, vad)
    if "channels" in cases:
        for name, channel in channels().items():
            silent_too, speech = (through(some, name, channel, seed) for some in (test.silent, test.speech))
            rows += case(study, f"channel: {name}", silent_too, speech, hard, vad)
    if "classes" in cases:
        rows += left_out_classes(study, fit, seen, max(ks))
    if "long" in cases:
        rows += long_case(study)
    about = {
        "model": model.name,
        "site": site,
        "options": dict(options),
        "clips": {clips.split: [len(clips.silent), len(clips.speech)] for clips in (fit, valid, test)},
        "features of gates": {name: list(gate.probe.features or ()) for name, gate in gates.items() if name != ALL},
        "thresholds": {name: gate.threshold for name, gate in gates.items()},
        "edits": {
            name: [str(edit) for edit in some][:1] for name, some in study.edits.items() if name != "fitted shift"
        },
    }
    title = f"Invented words of {model.name}: {len(test.silent)} clips without speech, {len(test.speech)} with"
    fitted = {"clip": shift.conditional(gates[f"gate on {max(ks)} features"])}
    return Report(title, rows, [], about), fitted | ({"second": timed} if timed else {})
