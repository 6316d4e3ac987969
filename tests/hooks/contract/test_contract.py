"""What holds for every model of every family: `CASES` of the files beside this one, each with random weights."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from hooks import AudioModel, ModelError, Site, SiteError, attach, open_model, wrap_model
from steer import SAE, Clamp, PerRow, SteeredModel
from tests.hooks.contract.case import Case, Way

FEW = 5
"""At how many of a model's sites the slow checks look: the first, the last, and some between."""


def collect() -> Iterator[Any]:
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("case", "test_contract"):
            try:
                cases = importlib.import_module(f"tests.hooks.contract.{path.stem}").CASES
            except pytest.skip.Exception as skipped:
                yield pytest.param(None, id=path.stem, marks=pytest.mark.skip(reason=str(skipped)))
            else:
                yield from (pytest.param(case, id=case.name) for case in cases)


@pytest.fixture(scope="module", params=collect())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def model(case: Case) -> AudioModel:
    """Shared by all tests of a case, so none may change it."""
    return build(case)


@pytest.fixture(scope="module")
def heard(case: Case, model: AudioModel) -> Heard:
    """Of the way "run", without an edit."""
    return listened(case, model, ways_of(case)["run"])


@pytest.fixture
def own(case: Case) -> AudioModel:
    """The same model once more, for a test that changes it."""
    return build(case)


def build(case: Case, seed: int = 0) -> AudioModel:
    torch.manual_seed(seed)
    return wrap_model(case.build())


def ways_of(case: Case) -> dict[str, Way]:
    return {"run": Way(lambda model, audio_BCN: model.run(audio_BCN), slack=None), **case.ways}


def prepared(case: Case, model: AudioModel, way: Way, rows: int = 1) -> Any:
    audio_BCN = case.audio(model, rows)
    return audio_BCN if way.given is None else seeded(way.given, model, audio_BCN)


def seeded(call: Any, *args: Any) -> Any:
    """Some models are random also in evaluation mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        return call(*args)


def plain_types(value: Any, seen: frozenset[int] = frozenset()) -> Any:
    """An output as plain types, type names and tensors, whatever holds them."""
    if isinstance(value, Tensor) or value is None or isinstance(value, str | int | float | bool):
        return value
    if id(value) in seen:
        return "again"
    seen |= {id(value)}
    if isinstance(value, Mapping):
        inside: Any = {key: plain_types(item, seen) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        inside = [plain_types(item, seen) for item in value]
    elif is_dataclass(value):
        inside = {one.name: plain_types(getattr(value, one.name), seen) for one in fields(value)}
    else:
        inside = (
            {key: plain_types(item, seen) for key, item in vars(value).items()} if hasattr(value, "__dict__") else None
        )
    return type(value).__name__, inside


def same(one: Any, other: Any) -> bool:
    return equal(plain_types(one), plain_types(other))


def equal(one: Any, other: Any, rounding: float = 0.0) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        if not rounding or not one.is_floating_point() or one.shape != other.shape:
            return one.dtype == other.dtype and torch.equal(one, other)
        spread = float(other.std()) if other.numel() > 1 else 1.0
        return one.dtype == other.dtype and torch.allclose(one, other, atol=rounding * spread, rtol=rounding)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key], rounding) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b, rounding) for a, b in zip(one, other, strict=True))
    return one == other or one != one


def few(names: list[str]) -> list[str]:
    """Some of many, the ends among them."""
    if len(names) <= FEW:
        return names
    return [names[round(index * (len(names) - 1) / (FEW - 1))] for index in range(FEW)]


class Listening:
    """What passed at every site while it was open: {site: [activations]}, in the order of their first pass."""

    def __init__(self, model: AudioModel) -> None:
        self.model, self.passed, self._stack = model, {}, ExitStack()  # type: ignore[var-annotated]

    def __enter__(self) -> dict[str, list[Tensor]]:
        for site in self.model.sites.values():
            self._stack.enter_context(attach(self.model.module, site, partial(self._note, site.name)))
        return self.passed

    def _note(self, name: str, x_BTD: Tensor) -> None:
        self.passed.setdefault(name, []).append(x_BTD.clone())

    def __exit__(self, *error: object) -> None:
        self._stack.close()


class Heard(NamedTuple):
    """An output, and what passed at every site on the way to it."""

    output: Any
    passed: dict[str, list[Tensor]]

    def width(self, site: str) -> int:
        return self.passed[site][0].shape[2]


def listened(case: Case, model: AudioModel, way: Way) -> Heard:
    given = prepared(case, model, way)
    with Listening(model) as passed:
        output = seeded(way.call, model, given)
    return Heard(output, passed)


def push(x_BTD: Tensor, sizes: float | Tensor = 3.0) -> Tensor:
    """Three times as far as the activation is wide, not the same for all channels (layer norms would not see that)."""
    direction_D = torch.randn(x_BTD.shape[2], generator=torch.Generator().manual_seed(2)).to(x_BTD)
    return x_BTD + sizes * x_BTD.float().std().clamp(min=0.01).to(x_BTD.dtype) * direction_D


def hooks_on(module: nn.Module) -> list[tuple[str, int]]:
    return [(path, len(one._forward_hooks) + len(one._forward_pre_hooks)) for path, one in module.named_modules()]


def random_sae(width: int) -> SAE:
    torch.manual_seed(3)
    return SAE(width, 32, "topk", k=8).requires_grad_(False)


# --- sites ---


def test_every_way_passes_its_sites_as_declared(case: Case, model: AudioModel, heard: Heard) -> None:
    for label, way in ways_of(case).items():
        passed = (heard if label == "run" else listened(case, model, way)).passed
        assert set(passed) == {name for name in model.sites if way.expects(name)}, label
        rates = [rate for name in passed if (rate := model.sites[name].frame_rate)]
        for name, calls in passed.items():
            site = model.sites[name]
            assert all(x_BTD.ndim == 3 for x_BTD in calls)
            if site.width is not None:
                assert {x_BTD.shape[2] for x_BTD in calls} == {site.width}, (label, name)
            if way.slack is not None and site.frame_rate is not None:
                frames = sum(x_BTD.shape[1] for x_BTD in calls)
                spare = way.slack * site.frame_rate / min(rates)
                assert abs(frames - case.seconds * site.frame_rate) <= spare, (label, name, frames)


def test_sites_are_listed_in_the_order_in_which_they_are_passed(model: AudioModel, heard: Heard) -> None:
    assert list(heard.passed) == list(model.sites)


# --- nothing without an edit ---


def test_without_edits_every_way_is_bit_identical(case: Case, model: AudioModel, heard: Heard) -> None:
    saes = {name: random_sae(heard.width(name)) for name in few(list(model.sites))}
    steered = SteeredModel(model, saes, check=False)
    before = hooks_on(model.module)
    for label, way in ways_of(case).items():
        given = prepared(case, model, way)
        plain = seeded(way.call, model, given)
        assert same(seeded(way.call, steered, given), plain), label
        with steered.edit({name: Clamp([0], 5.0) for name in steered.saes}):
            edited = seeded(way.call, steered, given)
        assert same(seeded(way.call, model, given), plain), label
        if label == "run":
            assert not same(edited, plain)
    assert hooks_on(model.module) == before


def test_a_change_of_nothing_keeps_the_types(case: Case, model: AudioModel) -> None:
    for label, way in ways_of(case).items():
        given = prepared(case, model, way)
        plain = seeded(way.call, model, given)
        with ExitStack() as stack:
            for site in model.sites.values():
                stack.enter_context(attach(model.module, site, Tensor.clone))
            unchanged = seeded(way.call, model, given)
        # a copy may lie otherwise in memory than a slice that a library passes on: convolutions then round otherwise
        assert equal(plain_types(unchanged), plain_types(plain), rounding=1e-5), label


# --- an edit ---


def test_an_edit_changes_what_comes_after_and_nothing_before(case: Case, model: AudioModel, heard: Heard) -> None:
    run = ways_of(case)["run"]
    order = list(heard.passed)
    for place in few(order):
        with attach(model.module, model.sites[place], push):
            # heard behind the push at its own site
            edited, passed = listened(case, model, run)
        assert not same(edited, heard.output), place
        for name in order:
            equal_bits = all(map(torch.equal, passed[name], heard.passed[name]))
            assert equal_bits == (order.index(name) < order.index(place)), (place, name)


def test_a_steered_model_proves_its_sites(model: AudioModel, heard: Heard) -> None:
    SteeredModel(model, {name: random_sae(heard.width(name)) for name in few(list(model.sites))})


def test_rows_of_a_batch_are_what_they_are_alone(case: Case, model: AudioModel, heard: Heard) -> None:
    if not case.batch:
        with pytest.raises(ModelError):
            model.run(case.audio(model, rows=2))
        return
    name = few(list(model.sites))[len(few(list(model.sites))) // 2]
    steered = SteeredModel(model, random_sae(heard.width(name)), name, check=False)
    audio_BCN = case.audio(model, rows=2)
    strengths = torch.tensor([0.0, 4.0]) * float(heard.passed[name][0].std())
    with steered.edit(Clamp([1, 2], PerRow(strengths))):
        both = tensors(seeded(model.run, audio_BCN))
    for row, strength in enumerate(strengths):
        with steered.edit(Clamp([1, 2], float(strength))):
            alone = tensors(seeded(model.run, audio_BCN[row : row + 1]))
        for of_both, of_one in zip(both, alone, strict=True):
            # float32 sums in another order, through some tens of layers
            torch.testing.assert_close(
                of_both[row : row + 1], of_one, atol=1e-4 * float(of_one.std()) + 1e-6, rtol=1e-3
            )


def tensors(output: Any) -> list[Tensor]:
    """The tensors in an output that have a row for each sound."""

    def inside(value: Any) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            for item in value.values():
                yield from inside(item)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from inside(item)

    return [value for value in inside(plain_types(output)) if value.ndim and value.is_floating_point()]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(case: Case, dtype: torch.dtype, own: AudioModel) -> None:
    """Edited at the first and the last site in one type, between them in the other: float16 is slow on a CPU."""
    model = own
    model.module.to(dtype)
    audio_BCN = case.audio(model)
    if dtype in case.refuses:
        with pytest.raises((RuntimeError, TypeError, ValueError, AssertionError, ModelError)):
            seeded(model.run, audio_BCN)
        return
    plain, passed = listened(case, model, ways_of(case)["run"])
    assert {x_BTD.dtype for calls in passed.values() for x_BTD in calls} <= {dtype, torch.float32}
    names = list(passed)
    for name in (names[0], names[-1]) if dtype == torch.float16 else (names[len(names) // 2],):
        sae = random_sae(passed[name][0].shape[2])
        steered = SteeredModel(model, sae, name, check=False)
        with steered.edit(Clamp([0], 50 * float(passed[name][0].float().std()))):
            edited = seeded(model.run, audio_BCN)
        assert sae.W_enc.dtype == torch.float32
        assert not same(edited, plain), name
        for one, other in zip(tensors(edited), tensors(plain), strict=True):
            assert one.dtype == other.dtype
            assert torch.isfinite(one).all(), name


def test_gradients_on_request(case: Case, model: AudioModel) -> None:
    """Of the output with respect to how far the last site is pushed, with nothing behind it that stops them."""
    site = model.sites[list(model.sites)[-1]]
    sizes = torch.ones(1, requires_grad=True)
    with attach(model.module, site, lambda x_BTD: push(x_BTD, sizes.to(x_BTD))):
        plain, kept = (seeded(partial(model.run, grad=grad), case.audio(model)) for grad in (False, True))
    # with gradients some libraries take other kernels (attention, LSTM)
    assert equal(plain_types(kept), plain_types(plain), rounding=1e-4)
    assert not any(x.requires_grad for x in tensors(plain))
    score = sum((x * x).sum() for x in tensors(kept) if x.requires_grad)
    (slope,) = torch.autograd.grad(score, sizes)  # type: ignore[arg-type]
    assert slope.isfinite() and slope != 0


# --- the module stays the user's own ---


def test_training_mode_is_ended(own: AudioModel) -> None:
    model = wrap_model(own.module.train())
    assert not any(part.training for part in model.module.modules())


def test_hooks_of_others_are_kept_and_called(case: Case, own: AudioModel) -> None:
    model, calls = own, []
    site = model.sites[few(list(model.sites))[1]]
    theirs = site.find(model.module).register_forward_hook(lambda *_: calls.append("before"))
    audio_BCN = case.audio(model)
    with attach(model.module, site, push):
        later = site.find(model.module).register_forward_hook(lambda *_: calls.append("within"))
        seeded(model.run, audio_BCN)
    assert {"before", "within"} <= set(calls)
    calls.clear()
    seeded(model.run, audio_BCN)
    assert {"before", "within"} <= set(calls)
    theirs.remove()
    later.remove()


def test_compiled_modules_are_refused(own: AudioModel) -> None:
    module = own.module
    with pytest.raises((SiteError, ModelError), match="compile"):
        wrap_model(torch.compile(module))
    model = wrap_model(module)
    site = model.sites[few(list(model.sites))[1]]
    # what `module.compile()` leaves behind; compiling itself takes minutes
    site.find(model.module)._compiled_call_impl = lambda *args: None
    with pytest.raises(SiteError, match="compile"):
        attach(model.module, site, push)


def test_copies_are_models_of_their_own(case: Case, own: AudioModel) -> None:
    model, audio_BCN = own, case.audio(own)
    plain = seeded(model.run, audio_BCN)
    untouched = hooks_on(model.module)
    site = model.sites[few(list(model.sites))[2]]
    with attach(model.module, site, push):
        within = copy.deepcopy(model)
    after = copy.deepcopy(model)
    assert hooks_on(after.module) == untouched
    for twin in (within, after):
        assert twin.module is not model.module
        assert same(seeded(twin.run, audio_BCN), plain)
        with attach(twin.module, twin.site(site.name), push):
            assert not same(seeded(twin.run, audio_BCN), plain)
            assert same(seeded(model.run, audio_BCN), plain)


def test_new_weights_take_effect(case: Case, own: AudioModel) -> None:
    """Also where a library keeps something that it computed from the old ones."""
    model, other = own, build(case, seed=5)
    audio_BCN = case.audio(model)
    wanted = seeded(other.run, audio_BCN)
    assert not same(seeded(model.run, audio_BCN), wanted)
    model.module.load_state_dict(other.module.state_dict())
    assert same(seeded(model.run, audio_BCN), wanted)


def test_saved_and_opened_again_it_is_the_same(case: Case, model: AudioModel, tmp_path: Path) -> None:
    again = open_model(case.save(model.module, tmp_path / "saved"))
    assert type(again) is type(model)
    assert list(again.sites.values()) == list(model.sites.values())
    assert (again.sample_rate, again.channels) == (model.sample_rate, model.channels)
    audio_BCN = case.audio(model)
    one, other = (plain_types(seeded(which.run, audio_BCN)) for which in (again, model))
    # weights from a file lie otherwise in memory, and kernels then sum in another order
    assert equal(one, other, rounding=1e-5)


def test_sites_are_the_modules_own(case: Case, model: AudioModel) -> None:
    for name, site in model.sites.items():
        assert isinstance(site, Site) and site.name == name
        site.find(model.module)
