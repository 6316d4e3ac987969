from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steer.errors import ProbeError
from steer.probes import Bins, Probe, fit_probe, linear_bins, load_probes, named_bins, pitch_bins, save_probes

pytest.importorskip("sklearn", reason="extra eval: probes are fitted with scikit-learn")


def level_data(frames: int = 1200) -> tuple[Tensor, Tensor]:
    """Features of which some rise with a level (dB), at very different sizes, one is constant and one is zero."""
    g = torch.Generator().manual_seed(3)
    level = -60 + 50 * torch.rand(frames, generator=g)
    basis = torch.linspace(-60, -10, 12)
    f_NF = torch.exp(-(((level[:, None] - basis) / 6) ** 2)) * torch.logspace(-1, 1, 12)
    rest = torch.cat([torch.rand(frames, 4, generator=g), torch.full((frames, 1), 3.0), torch.zeros(frames, 1)], 1)
    return torch.cat([f_NF, rest], 1), level


@pytest.fixture(scope="module")
def level_probe() -> Probe:
    f_NF, level = level_data()
    return fit_probe(f_NF, level, linear_bins("loudness", "dB", level), site="latent")


# --- classes ---


def test_pitch_has_66_notes() -> None:
    bins = pitch_bins()
    assert len(bins.centres) == 66
    notes = torch.tensor([31.0, 69.0, 69.49, 69.5, 96.4, 20.0, 120.0, torch.nan])
    assert bins.classes(notes).tolist() == [0, 38, 38, 39, 65, 0, 65, -1]
    assert bins.centres[38] == 69


def test_linear_bins_are_equal_steps_over_the_data() -> None:
    values = torch.cat([torch.linspace(0, 100, 10_001), torch.tensor([1e6, -1e6, torch.nan])])
    bins = linear_bins("brightness", "Hz", values)
    assert len(bins.centres) == 20
    steps = torch.tensor(bins.centres).diff()
    torch.testing.assert_close(steps, torch.full((19,), 4.95), atol=0.01, rtol=0)  # 99 % of 100, in 20 steps
    classes = bins.classes(values)
    assert classes[-3:].tolist() == [19, 0, -1]  # outliers are clipped, NaN is left out
    assert torch.equal(classes[:-3], classes[:-3].sort().values)
    with pytest.raises(ProbeError, match="values that differ"):
        linear_bins("brightness", "Hz", torch.full((5,), torch.nan))


def test_named_classes() -> None:
    bins = named_bins("speaker", ["ann", "bob", "eve"])
    assert bins.classes(torch.tensor([2.0, 0.0, 1.0])).tolist() == [2, 0, 1]


# --- fitting ---


def test_reads_what_is_there(level_probe: Probe) -> None:
    f_NF, level = level_data(1000)
    assert level_probe.accuracy(f_NF, level) > 0.8  # by chance 0.05
    assert (level_probe.expected_value(f_NF) - level).abs().mean() < 1.5  # a class is 2.5 dB wide
    assert level_probe.predict(f_NF.view(10, 100, -1)).shape == (10, 100)


def test_is_scikit_learn_with_the_scaling_folded_in(level_probe: Probe) -> None:
    from sklearn.linear_model import LogisticRegression

    f_NF, level = level_data()
    std = f_NF.std(0)
    z = torch.where(std > 1e-4, (f_NF - f_NF.mean(0)) / std, 0)
    model = LogisticRegression(C=1.0, max_iter=300).fit(z.numpy(), level_probe.bins.classes(level).numpy())
    expected = torch.from_numpy(model.predict_proba(z.numpy())).float()
    # the same optimum, within the tolerance of the solver
    torch.testing.assert_close(level_probe.logits(f_NF).softmax(-1), expected, atol=0.02, rtol=0)
    assert not level_probe.weights[:, -2:].any()  # what never changes tells nothing


def test_frames_without_a_value_are_left_out(level_probe: Probe) -> None:
    f_NF, level = level_data()
    extra = torch.full((50, f_NF.shape[1]), 1e3)
    both = fit_probe(torch.cat([f_NF, extra]), torch.cat([level, torch.full((50,), torch.nan)]), level_probe.bins)
    assert torch.equal(both.weights, fit_probe(f_NF, level, level_probe.bins).weights)
    assert both.accuracy(torch.cat([f_NF, extra]), torch.cat([level, torch.full((50,), torch.nan)])) > 0.8


def test_two_classes_and_classes_that_never_came() -> None:
    f_NF = torch.randn(400, 3)
    values = (f_NF[:, 1] > 0).float() * 2  # classes 0 and 2 of 4
    probe = fit_probe(f_NF, values, named_bins("word", ["a", "b", "c", "d"]))
    assert probe.accuracy(f_NF, values) > 0.95
    assert set(probe.predict(f_NF).tolist()) == {0, 2}
    assert probe.counts.tolist()[1] == probe.counts.tolist()[3] == 0
    for class_ in (1, 3, 4, -1):
        with pytest.raises(ProbeError, match=f"class {class_} is not among"):
            probe.control_vector(class_)
    with pytest.raises(ProbeError, match="is not among"):
        probe.control_vector(0, from_=1)


def test_what_cannot_be_fitted() -> None:
    bins = named_bins("word", ["a", "b"])
    with pytest.raises(ProbeError, match="two classes or more"):
        fit_probe(torch.randn(9, 3), torch.zeros(9), bins)
    with pytest.raises(ProbeError, match="do not fit"):
        fit_probe(torch.randn(9, 3), torch.zeros(8), bins)
    probe = fit_probe(torch.randn(9, 3), torch.arange(9.0) % 2, bins)
    with pytest.raises(ProbeError, match="no frame has a value"):
        probe.accuracy(torch.randn(2, 3), torch.full((2,), torch.nan))


# --- control vectors ---


def test_control_vectors_are_class_weights(level_probe: Probe) -> None:
    weights = level_probe.weights
    towards = level_probe.control_vector(17)
    torch.testing.assert_close(towards.vector, weights[17] - weights.mean(0))
    assert towards.site == "latent"
    assert "dB" in towards.unit
    between = level_probe.control_vector(17, from_=4)
    torch.testing.assert_close(between.vector, weights[17] - weights[4])
    torch.testing.assert_close(between.vector, (towards - level_probe.control_vector(4)).vector, atol=1e-3, rtol=1e-4)


def test_a_shift_along_a_control_vector_moves_the_reading(level_probe: Probe) -> None:
    f_NF, _ = level_data(200)
    vector = level_probe.control_vector(15, from_=4).vector
    before = level_probe.logits(f_NF)
    for strength in (0.5, -0.1):
        after = level_probe.logits(f_NF + strength * vector)
        gained = (after - before)[:, 15] - (after - before)[:, 4]
        expected = (strength * vector @ vector).expand_as(gained)
        torch.testing.assert_close(gained, expected, rtol=1e-3, atol=1e-3)  # differences of large fp32 logits


def test_the_slope_is_that_of_the_weights_over_the_classes() -> None:
    centres, rising = torch.arange(6.0) * 2 + 30, torch.tensor([0.5, -1.0, 0.0])
    weights = centres[:, None] * rising + torch.tensor([4.0, 4.0, 4.0])
    weights[3] = 99.0  # of a class that no frame had
    counts = torch.tensor([5, 1, 9, 0, 4, 2])
    probe = Probe(Bins("level", tuple(centres.tolist()), "dB"), weights, torch.zeros(6), counts, "latent")
    slope = probe.slope()
    torch.testing.assert_close(slope.vector, rising)
    assert (slope.unit, slope.site) == ("towards more dB", "latent")
    named = Probe(named_bins("who", ["a", "b"]), weights[:2], torch.zeros(2), counts[:2])
    with pytest.raises(ProbeError, match="who: its classes are names"):
        named.slope()


# --- files ---


def test_files(level_probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "probes.safetensors"
    words = fit_probe(torch.randn(9, 3), torch.arange(9.0) % 2, named_bins("word", ["a", "b"]))
    save_probes({"loudness": level_probe, "word": words}, path)
    loaded = load_probes(path)
    assert set(loaded) == {"loudness", "word"}
    for name, probe in {"loudness": level_probe, "word": words}.items():
        assert loaded[name] == probe != replace(probe, weights=2 * probe.weights)
        assert loaded[name].bins == probe.bins
        assert loaded[name].site == probe.site
        for part in ("weights", "bias", "counts"):
            assert torch.equal(getattr(loaded[name], part), getattr(probe, part))
    assert list(tmp_path.iterdir()) == [path]


def test_bad_files(level_probe: Probe, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="no such file"):
        load_probes(tmp_path / "p.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ProbeError, match="not a file of probes"):
        load_probes(tmp_path / "text")
    with pytest.raises(ProbeError, match="could not be written"):
        save_probes({"a": level_probe}, tmp_path / "missing" / "p.safetensors")


def test_bins_compare_by_value() -> None:
    assert Bins("a", (1.0, 2.0)) == Bins("a", (1.0, 2.0)) != Bins("a", (1.0, 3.0))
