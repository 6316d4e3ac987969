"""On a model whose activations are the samples themselves: 8 a frame, 1000 frames a second, so that all is exact."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation.atlas import Atlas, AtlasError
from evaluation.atlas_build import SHUFFLES, bounds_of, build, halves, labels_between, matched, picked_on_halves
from evaluation.auroc import auroc
from evaluation.dataset import LabelledSound, LabelledSpan
from hooks import AudioFileError, AudioModel, Clip, Site, capture
from hooks.timing import current_time, sound_until
from steer.sae import SAE
from steer.steered import SteeredModel

RATE, WIDTH = 8_000, 8


class Frames(nn.Module):
    """[B, 1, N] -> [B, T, 8], twice; what does not fill a frame is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(WIDTH))
            self.second.weight.copy_(2 * torch.eye(WIDTH))

    def forward(self, audio_BCN: Tensor) -> Tensor:
        frames = audio_BCN.shape[-1] // WIDTH
        return self.second(self.first(audio_BCN[:, 0, : frames * WIDTH].reshape(len(audio_BCN), frames, WIDTH)))


class Windowed(AudioModel):
    """Hears windows of half a second, the last one filled up with a loud tone."""

    def run(self, audio_BCN: Tensor) -> Tensor:
        missing = -audio_BCN.shape[-1] % 4_000
        with sound_until((current_time() or 0.0) + audio_BCN.shape[-1] / RATE):
            return self.module(nn.functional.pad(audio_BCN, (0, missing), value=0.9))


def model_of(kind: type[AudioModel] = AudioModel, frame_rate: float | None = 1_000.0) -> AudioModel:
    sites = [Site(name, name, width=WIDTH, frame_rate=frame_rate) for name in ("first", "second")]
    return kind(Frames(), sites, name="frames", sample_rate=RATE)


def signs() -> SAE:
    """Feature j is a frame's sample j where that is positive, feature 8 + j where it is negative, feature 16 silent."""
    sae = SAE(WIDTH, 17, "relu").requires_grad_(False)
    sae.W_enc.copy_(torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH), torch.zeros(WIDTH, 1)], dim=1))
    return sae


def steered_of(model: AudioModel | None = None) -> SteeredModel:
    return SteeredModel(model or model_of(), signs(), "first")


def sound_of(
    x_TD: Tensor, name: str, intervals: tuple[LabelledSpan, ...] | None = None, **labels: str
) -> LabelledSound:
    return LabelledSound(Clip(x_TD.reshape(1, -1), RATE), name, labels, intervals)


def noises(count: int, longest: int = 1_500) -> list[LabelledSound]:
    """Of 0.1 s to `longest` frames, with a tie now and then, every other one labelled `odd`, a third by nobody."""
    lengths = torch.randint(100, longest, (count,)).tolist()
    return [
        sound_of(
            (0.1 * torch.randn(length, WIDTH)).clamp(-0.3, 0.3),
            str(index),
            subset=("even", "odd")[index % 2],
            **({"speaker": "abc"[index % 3]} if index % 3 else {}),
        )
        for index, length in enumerate(lengths)
    ]


def atlas_of(sounds: Sequence[LabelledSound], **options: float) -> Atlas:
    return build(steered_of(), sounds, **options)["first"]  # type: ignore[arg-type]


def frames_of(sounds: Sequence[LabelledSound], stretch_s: float) -> list[list[Tensor]]:
    """Features [T, F] of each stretch of each sound, by `capture`."""
    model, sae = model_of(), signs()
    return [
        [sae.encode(one.activations["first"][0]) for one in capture(model, [sound.source], ["first"], stretch_s)]
        for sound in sounds
    ]


# --- numbers ---


def test_density_mean_and_maximum_are_those_of_all_frames() -> None:
    sounds = noises(6)
    atlas = atlas_of(sounds, stretch_s=0.25)
    f_TF = torch.cat([f_TF for stretches in frames_of(sounds, 0.25) for f_TF in stretches])
    assert atlas.frames == len(f_TF)
    torch.testing.assert_close(atlas.density, (f_TF > 0).double().mean(0).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(atlas.mean, f_TF.double().mean(0).float(), rtol=1e-5, atol=0)  # sums in float32
    assert torch.equal(atlas.max, f_TF.amax(0))
    assert atlas.silent == [16]


@pytest.mark.parametrize("stretch_s", [0.25, 30.0])
def test_peaks_are_those_of_a_search_over_all_frames(stretch_s: float) -> None:
    sounds, count = noises(6), 4
    atlas = atlas_of(sounds, peaks=count, stretch_s=stretch_s)
    stretches = frames_of(sounds, stretch_s)
    for feature in range(16):
        found = []
        for clip, pieces in enumerate(stretches):
            tops = []
            for number, f_TF in enumerate(pieces):
                value, at_s = 0.0, 0.0
                for t, x in enumerate(f_TF[:, feature].tolist()):
                    if x > value:
                        value, at_s = x, number * stretch_s + (t + 0.5) / 1_000
                tops.append((value, at_s))
            for i, (value, at_s) in enumerate(tops):
                before = i > 0 and at_s - tops[i - 1][1] < stretch_s and tops[i - 1][0] >= value
                behind = i + 1 < len(tops) and tops[i + 1][1] - at_s < stretch_s and tops[i + 1][0] > value
                if value > 0 and not before and not behind:
                    found.append((value, clip, at_s))
        found = sorted(found, key=lambda peak: -peak[0])[:count]  # stable: of equal ones the first
        peaks = atlas.feature(feature).peaks
        assert [(peak.value, int(peak.clip)) for peak in peaks] == [(value, clip) for value, clip, _ in found]
        assert [peak.at_s for peak in peaks] == pytest.approx([at_s for _, _, at_s in found], abs=1e-6)


def test_peaks_of_a_clip_keep_their_distance() -> None:
    (sound,) = noises(1, 101)
    long = LabelledSound(Clip(0.1 * torch.randn(1, 8 * RATE), RATE), "long")
    atlas = atlas_of([sound, long], peaks=50, stretch_s=0.5)
    for feature in range(16):
        times = sorted(peak.at_s or 0.0 for peak in atlas.feature(feature).peaks if peak.clip == "long")
        assert len(times) > 4
        assert min(b - a for a, b in itertools.pairwise(times)) >= 0.5
        assert sum(peak.clip == sound.name for peak in atlas.feature(feature).peaks) == 1


def test_one_event_on_a_cut_is_one_peak() -> None:
    x_TD = torch.zeros(1_000, WIDTH)
    x_TD[495:505, 0] = torch.tensor([0.5] * 5 + [0.6] * 5)
    (peak,) = atlas_of([sound_of(x_TD, "a")], stretch_s=0.5).feature(0).peaks
    assert (peak.value, peak.at_s) == (pytest.approx(0.6), pytest.approx(0.5005))


# --- labels ---


def test_auroc_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is what it is compared with")
    sounds = noises(24, 200)
    atlas = atlas_of(sounds)
    pooled_NF = np.stack([f_TF.double().mean(0).float().numpy() for (f_TF,) in frames_of(sounds, 30.0)])
    assert [concept.name for concept in atlas.concepts] == ["subset:even", "subset:odd", "speaker:b", "speaker:c"]
    for concept, auroc_F in zip(atlas.concepts, atlas.auroc, strict=True):
        truth = [sound.labels.get(concept.kind) == concept.value for sound in sounds]
        assert (concept.positives, concept.others) == (sum(truth), len(truth) - sum(truth))
        for feature in range(17):
            theirs = metrics.roc_auc_score(truth, pooled_NF[:, feature])
            # sums of one order or another: no two clips are nearer than float32 can tell
            assert float(auroc_F[feature]) == pytest.approx(theirs, abs=1e-6)


def test_a_feature_that_tells_a_label_and_one_that_does_not() -> None:
    sounds = noises(40, 200)
    for index, sound in enumerate(sounds):
        if sound.labels["subset"] == "odd":
            assert isinstance(sound.source, Clip)
            sound.source.waveform[0, 3::WIDTH] += 0.2 + index / 1_000
    atlas = atlas_of(sounds)
    best = atlas.feature(3).labels[0]
    assert (best.label, best.auroc, best.positives, best.others) == ("subset:odd", 1.0, 20, 20)
    assert 0.5 < best.chance < 0.9  # 17 features, none of which knows the shuffled labels
    assert [meaning.feature for meaning in atlas.by_label("odd", 1)] == [3]
    assert float(atlas.auroc[0, 3]) == 0.0  # and subset:even is what it does not fire at
    assert atlas.clearest(2)[0].feature in (3, 11)  # 11 is the negative side of 3


def test_a_label_of_one_clip_has_no_auroc() -> None:
    sounds = [sound_of(0.1 * torch.randn(50, WIDTH), str(n), who="ann" if n == 3 else "bob") for n in range(6)]
    atlas = atlas_of(sounds)
    assert [(concept.positives, concept.others, concept.chance) for concept in atlas.concepts] == [
        (1, 5, None),
        (5, 1, None),
    ]
    assert atlas.auroc.isnan().all()
    assert atlas.feature(0).labels == []
    with pytest.raises(AtlasError, match="who:ann: too few clips"):
        atlas.by_label("ann", 3)
    assert atlas.report().rows[0]["AUROC"] is None


def test_intervals_are_compared_with_what_is_outside() -> None:
    """Feature 2 fires from 0.3 to 0.6 s of every clip with an interval, feature 5 in the whole of these clips."""
    sounds = []
    for index in range(6):
        x_TD = -0.1 * torch.rand(1_000, WIDTH)
        if index < 3:
            x_TD[300:600, 2], x_TD[:, 5] = 0.5, 0.25 + 0.125 * index
        sounds.append(sound_of(x_TD, str(index), ((0.3, 0.6, "beep"),) if index < 3 else ()))
    sounds.append(sound_of(torch.full((500, WIDTH), 0.5), "unknown"))  # takes no part
    atlas = atlas_of(sounds, stretch_s=0.4)  # an interval may lie across a cut
    (concept,) = atlas.concepts
    assert (concept.name, concept.positives, concept.others) == ("interval:beep", 3, 9)
    assert float(atlas.auroc[0, 2]) == 1.0
    # it is the same before, in and behind the interval: of the 9 others each of the 3 has lower ones, and 2 as high
    assert float(atlas.auroc[0, 5]) == pytest.approx((3 + 1 + 3 + 2 + 1 + 3 + 4 + 1) / 27)
    assert atlas.by_label("beep", 1)[0].feature == 2


def test_intervals_may_overlap() -> None:
    spans = ((1.0, 3.0, "a"), (2.0, 4.0, "b"), (3.0, 4.0, "a"))
    assert bounds_of(spans) == [1.0, 2.0, 3.0, 4.0]
    assert labels_between(spans) == [frozenset(s) for s in ("", "a", "ab", "ab", "")]


# --- chance ---


def only(*values: str) -> list[frozenset[str]]:
    return [frozenset([value]) for value in values]


def test_a_best_feature_of_noise_is_at_chance() -> None:
    """Of 400 features the best looks like something on the clips it was picked on, and is nothing on the others."""
    labels, found = only(*"ab" * 20), []
    for _ in range(20):
        scores_NF = torch.randn(40, 400)
        (_, concept), auroc_CF = matched("kind", labels, scores_NF, range(40))
        assert concept.chance is not None and concept.picked is not None
        best = float(auroc_CF[1].max())
        assert best > 0.68
        found.append((concept.picked, best > concept.chance))
    picked, above = np.array(found, dtype=float).T
    # an AUROC of 10 against 10 has a standard deviation of 0.13: 0.02 in the mean of 40
    assert picked.mean() == pytest.approx(0.5, abs=0.07)
    # one in twenty by construction, labels that another one mirrors
    assert above.sum() <= 4


def test_a_feature_that_tells_is_picked_on_either_half() -> None:
    scores_NF = torch.randn(40, 400)
    scores_NF[1::2, 7] += 5
    (_, concept), _ = matched("kind", only(*"ab" * 20), scores_NF, range(40))
    assert concept.picked is not None and concept.picked > 0.99
    assert concept.chance is not None and 0.7 < concept.chance < 0.9


def test_chance_is_what_the_best_stays_under_in_95_percent_of_shuffles() -> None:
    labels, scores_NF = only(*"a" * 8, *"b" * 24), torch.randn(32, 50)
    (few, many), _ = matched("kind", labels, scores_NF, range(32))
    members_SN = torch.stack([torch.randperm(32) < 8 for _ in range(2000)])
    best_S = auroc(scores_NF, members_SN).amax(1)
    assert few.chance == pytest.approx(float(best_S.quantile(0.95)), abs=0.03)
    # 8 of 32 are as many pairs as 24 of 32, but the shuffles are others
    assert many.chance == pytest.approx(few.chance, abs=0.05)
    assert SHUFFLES >= 100


def test_halves_are_of_whole_clips_and_of_all_labels() -> None:
    labels = only(*"aaaabbbbcc")
    second_N = halves(labels, range(10))
    assert [sum(second_N[start:end].tolist()) for start, end in ((0, 4), (4, 8), (8, 10))] == [2, 2, 1]
    # the stretches of a clip stay together
    clips = [0, 0, 0, 1, 1, 2, 3, 3, 4, 4]
    second_N = halves(only(*"xyxyxxyxyx"), clips)
    assert all(len({bool(second_N[n]) for n in range(10) if clips[n] == clip}) == 1 for clip in clips)
    assert 0 < int(second_N.sum()) < 10


def test_a_half_without_a_label_picks_nothing() -> None:
    members_CN = torch.tensor([[True, True, False, False], [True, False, True, False]])
    second_N = torch.tensor([False, False, True, True])
    assert picked_on_halves(torch.randn(4, 3), members_CN, second_N)[0] is None
    assert picked_on_halves(torch.randn(4, 3), members_CN, second_N)[1] is not None


# --- models ---


def test_padding_does_not_count() -> None:
    sounds = [sound_of(0.1 * torch.rand(length, WIDTH), str(length)) for length in (130, 510, 1_000, 1_230)]
    plain = atlas_of(sounds, stretch_s=1.0)
    windowed = build(steered_of(model_of(Windowed)), sounds, stretch_s=1.0)["first"]
    assert windowed.frames == plain.frames == 2_870
    for name in ("density", "mean", "max", "peak_value", "peak_clip", "peak_s"):
        torch.testing.assert_close(getattr(windowed, name), getattr(plain, name), rtol=0, atol=0, equal_nan=True)


def test_a_sound_without_a_frame_is_only_listed() -> None:
    sounds = noises(2)
    atlas = atlas_of([sound_of(torch.zeros(1, 7), "short", subset="even"), *sounds])
    assert {peak.clip for peak in atlas.feature(0).peaks} == {"0", "1"}
    assert atlas.frames == atlas_of(sounds).frames
    assert atlas.concepts[0].positives == 2


def test_several_sites_in_one_pass() -> None:
    sounds, asked = noises(3), []
    steered = SteeredModel(model_of(), {"first": signs(), "second": signs()})
    both = build(steered, sounds, progress=lambda jobs: asked.append(list(jobs)) or jobs)
    assert asked == [sounds]
    assert list(both) == ["first", "second"]
    assert torch.equal(both["second"].max, 2 * both["first"].max)
    assert torch.equal(both["first"].peak_clip, atlas_of(sounds).peak_clip)


def test_a_site_without_a_frame_rate_has_no_times() -> None:
    sounds = [sound_of(0.1 * torch.rand(90, WIDTH), "a", ((0.0, 0.05, "x"),))]
    atlas = build(steered_of(model_of(frame_rate=None)), sounds)["first"]
    assert atlas.feature(0).peaks[0].at_s is None
    assert atlas.concepts == []  # nor is it known which frames are in an interval


def test_a_speech_encoder() -> None:
    transformers = pytest.importorskip("transformers", reason="HuBERT is the library's")
    config = transformers.HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        conv_dim=[8] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    sae = SAE(16, 32, "topk", k=4)
    steered = SteeredModel(transformers.HubertModel(config), sae, "encoder.1")
    clip = Clip(0.1 * torch.randn(1, 16_000), 16_000)
    atlas = build(steered, [LabelledSound(clip, "a")])["encoder.1"]
    f_TF = steered.features(clip)["encoder.1"][0]
    assert atlas.frames == len(f_TF) == 49
    assert torch.equal(atlas.max, f_TF.amax(0))


# --- mistakes ---


def test_mistakes_are_told_and_leave_no_hooks() -> None:
    steered = steered_of()
    with pytest.raises(AtlasError, match="needs sounds"):
        build(steered, [])
    with pytest.raises(AtlasError, match="no frame at first"):
        build(steered, [sound_of(torch.zeros(1, 7), "short")])
    with pytest.raises(AudioFileError, match="none.wav"):
        build(steered, [*noises(1), LabelledSound("none.wav", "none")])
    steered.saes["first"].b_enc[0] = torch.nan  # type: ignore[attr-defined]
    with pytest.raises(AtlasError, match="0: the features at first are not finite"):
        build(steered, noises(1))
    assert not steered.model.module.first._forward_hooks
