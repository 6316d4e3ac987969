"""Conditional edits on a small model of which all is known: what passes where, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import Clip, Codec, Site, at_time, capture, rows_at, sound_until
from hooks.capture import Recorder
from hooks.timing import Whole, saying
from steer import (
    SAE,
    Ablate,
    AddDirection,
    EditError,
    Gate,
    GateProbe,
    Scale,
    Shift,
    SteeredModel,
    Stream,
    gate_logits,
)
from steer.delta import site_edit
from steer.values import Frames

RATE, WIDTH = 100, 6
"""Hz of the sound, which is that of the frames at both sites times 10; the latent is half as fast."""


class Net(nn.Module):
    """[B, 1, N] -> `fine`, a frame each 10 samples, -> `coarse`, one each 20, -> the sound again.

    The first coordinates of `fine` are the means of the frames' samples and of their negatives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.out = nn.Identity(), nn.Identity(), nn.Identity()
        self.passes = 0

    def forward(self, audio_BCN: Tensor) -> Tensor:
        self.passes += 1
        x_BT = audio_BCN[:, 0].unfold(1, 10, 10).mean(-1)
        rest_BTD = torch.stack([(k + 2) * x_BT.sin() + k for k in range(WIDTH - 2)], dim=-1)
        x_BTD = self.fine(torch.cat([x_BT[..., None], -x_BT[..., None], rest_BTD], dim=-1))
        y_BTD = self.coarse(x_BTD[:, : x_BTD.shape[1] // 2 * 2].unflatten(1, (-1, 2)).sum(2))
        return self.out(y_BTD).repeat_interleave(20, dim=1).sum(-1)[:, None]


class Small(Codec):
    hop_length, context_s, keeps_phase = 20, 0.2, True

    def __init__(self) -> None:
        rates = {"fine": 100.0, "coarse": 50.0, "out": 50.0}
        sites = [Site(name, name, width=WIDTH, frame_rate=rate) for name, rate in rates.items()]
        super().__init__(Net(), sites, name="small", sample_rate=1000)

    def _run(self, audio_BCN: Tensor) -> Tensor:
        return self.module(audio_BCN)


LENGTH = 400
"""Samples of a clip of 0.4 s: 40 frames at `fine`, 20 at `coarse`."""
LOUD, SOFT = torch.full((1, 1, LENGTH), 0.5), torch.full((1, 1, LENGTH), -0.5)
LEVEL = GateProbe(torch.eye(WIDTH)[0], 0.0, None, site="fine", model="small")
"""The logit is the mean of the sound."""
PUSH = AddDirection(torch.arange(WIDTH) + 1.0)


@pytest.fixture
def model() -> Iterator[Small]:
    model = Small()
    yield model
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.module.modules())


@pytest.fixture
def steered(model: Small, random_sae: Callable[..., SAE]) -> SteeredModel:
    saes = {name: random_sae("relu", WIDTH, 20) for name in ("fine", "coarse")}
    return SteeredModel(model, saes, check=False)


def noise(batch: int, samples: int = LENGTH) -> Tensor:
    return torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(3))


def seen(steered: SteeredModel, site: str, audio_BCN: Tensor) -> Tensor:
    """What leaves a site, whatever edits are on."""
    with Recorder(steered.model.module, [steered.model.site(site)]) as recorder:
        steered.run(audio_BCN)
        return recorder.take()[site]


EDITS: dict[str, list[Any]] = {
    "features": [Ablate([3]), Scale([3, 7], 2.0)],
    "shift": [Shift(torch.linspace(-1, 1, 20), 3.0)],
    "activation": [PUSH],
    "both": [Ablate([2]), PUSH, Scale([5], 3.0, during=(0.1, 0.2))],
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("site", ["fine", "coarse"])
@pytest.mark.parametrize("scope", ["clip", "window", 0.05])
def test_open_it_is_the_edit_and_shut_it_is_nothing(steered: SteeredModel, name: str, site: str, scope: Any) -> None:
    edits = EDITS[name]
    for sound, opens in ((LOUD, True), (SOFT, False)):
        plain = steered.run(sound)
        with steered.edit(*edits, site=site):
            always = steered.run(sound)
        with steered.edit(*edits, site=site, when=Gate(LEVEL, 0.0, scope)):
            found = steered.run(sound)
        with steered.edit(*edits, site=site, when=~Gate(LEVEL, 0.0, scope)):
            other = steered.run(sound)
        assert not torch.equal(plain, always)
        assert torch.equal(found, always if opens else plain)
        assert torch.equal(other, plain if opens else always)


def test_shut_the_module_s_own_output_is_passed_on(steered: SteeredModel) -> None:
    passed = []
    with steered.edit(PUSH, site="fine", when=Gate(LEVEL)):
        handle = steered.model.module.fine.register_forward_hook(
            lambda module, args, output: passed.append(output is args[0])
        )
        steered.run(SOFT)
        steered.run(LOUD)
        handle.remove()
    assert passed == [True, False]


@pytest.mark.parametrize("scope", ["clip", "window", 0.05])
@pytest.mark.parametrize("site", ["fine", "coarse"])
def test_a_row_does_not_depend_on_its_neighbours(steered: SteeredModel, scope: Any, site: str) -> None:
    audio_BCN = noise(7)
    probe = GateProbe(torch.randn(2, 4), -0.1, [1, 4, 5, 9], ("mean", "log_max"), "fine")
    logits = torch.cat([gate_logits(steered, Gate(probe), Clip(row, 1000)) for row in audio_BCN]).sort().values
    gate = Gate(probe, float(logits[2:4].mean()), scope)
    with steered.edit(*EDITS["both"], site=site, when=gate):
        together = steered.run(audio_BCN)
        alone = torch.cat([steered.run(audio_BCN[row : row + 1]) for row in range(7)])
        pairs = torch.cat([steered.run(audio_BCN[:4]), steered.run(audio_BCN[4:])])
    assert torch.equal(together, alone) and torch.equal(together, pairs)
    plain = steered.run(audio_BCN)
    shut = sum(torch.equal(together[row], plain[row]) for row in range(7))
    assert shut == 3 or isinstance(scope, float)


def test_seconds_are_decided_frame_by_frame(steered: SteeredModel) -> None:
    audio_BCN = noise(2, 1000)
    probe = GateProbe(torch.randn(2, WIDTH), 0.1, None, ("mean", "max"), "fine")
    x_BTD = seen(steered, "fine", audio_BCN)
    # 0.05 s are 5 frames
    logits_BT = torch.tensor(
        [[probe.logit(x_BTD[row : row + 1, max(0, n - 2) : n + 3]) for n in range(100)] for row in range(2)]
    )
    middle = logits_BT.flatten().sort().values[99:101].mean()
    gate, open_BT = Gate(probe, float(middle), 0.05), logits_BT > middle
    with steered.edit(PUSH, site="fine", when=gate):
        edited_BTD = seen(steered, "fine", audio_BCN)
    assert torch.equal(edited_BTD, torch.where(open_BT[..., None], x_BTD + PUSH.vector, x_BTD))
    # where frames are half as many, that of the gate in whose time the middle of the edited one lies
    y_BTD = seen(steered, "coarse", audio_BCN)
    with steered.edit(PUSH, site="coarse", when=gate):
        edited_BTD = seen(steered, "coarse", audio_BCN)
    assert torch.equal(edited_BTD, torch.where(open_BT[:, 1::2, None], y_BTD + PUSH.vector, y_BTD))


@pytest.mark.parametrize("scope", ["clip", "window", 0.05])
def test_padding_has_no_part_in_it(steered: SteeredModel, scope: Any) -> None:
    """A loud sound of 0.4 s, filled up with what would shut the gate; frames of padding go with the last ones."""
    audio_BCN = torch.cat([LOUD, SOFT, SOFT, SOFT], dim=2)
    plain = seen(steered, "fine", audio_BCN)
    for padding in (True, False):
        with (
            steered.edit(PUSH, site="fine", when=Gate(LEVEL, 0.2, scope), padding=padding),
            Recorder(steered.model.module, [steered.model.site("fine")]) as recorder,
        ):
            with saying(wholes=(Whole(0.0, 0.4),), start_s=0.0, end_s=0.4):
                output = steered.run(audio_BCN)
            recorded = recorder.take()["fine"]
        assert torch.equal(recorded, plain[:, :40] + PUSH.vector)
        # 20 samples of output for each frame of `coarse`
        assert torch.equal(output[..., 400:], steered.run(audio_BCN)[..., 400:]) != padding


def test_rows_that_end_at_different_times(steered: SteeredModel) -> None:
    """Loud sounds of 0.2 s and 0.4 s, and a soft one of 0.4 s, each filled up to 0.8 s."""
    fill = torch.full((1, 1, 400), -9.0)
    rows = [
        torch.cat([LOUD[..., :200], fill[..., :200], fill], dim=2),
        torch.cat([LOUD, fill], dim=2),
        torch.cat([SOFT, fill], dim=2),
    ]
    audio_BCN = torch.cat(rows)
    plain = steered.run(audio_BCN)
    with steered.edit(PUSH, site="coarse"):
        always = steered.run(audio_BCN)
    for wholes in (None, [Whole(0.0, 0.2), Whole(0.0, 0.4), Whole(0.0, 0.4)]):
        for scope in ("window",) if wholes is None else ("window", "clip"):
            with (
                steered.edit(PUSH, site="coarse", when=Gate(LEVEL, 0.0, scope)),  # type: ignore[arg-type]
                rows_at([(0.0, 0.2), (0.0, 0.4), (0.0, 0.4)], wholes),
            ):
                found = steered.model.module(audio_BCN)
            assert torch.equal(found, torch.cat([always[:2], plain[2:]]))


def test_several_rows_of_one_sound_share_a_decision(steered: SteeredModel) -> None:
    """Channels: the mean of a loud and a softer, louder one is above 0."""
    audio_BCN = torch.cat([LOUD * 1.5, SOFT])
    with steered.edit(PUSH, site="fine"):
        always = steered.run(audio_BCN)
    with steered.edit(PUSH, site="fine", when=Gate(LEVEL)):
        with saying(wholes=(Whole(0.0, 0.4),)):
            assert torch.equal(steered.run(audio_BCN), always)
        assert torch.equal(steered.run(audio_BCN)[:1], always[:1])
        assert not torch.equal(steered.run(audio_BCN)[1:], always[1:])


# --- a gate that comes later, and clips that are longer than a pass ---


@pytest.mark.parametrize("scope", ["clip", "window", 0.05])
def test_a_later_gate_decides_beforehand(steered: SteeredModel, scope: Any) -> None:
    later = Gate(GateProbe(torch.eye(WIDTH)[0], 0.0, None, site="coarse"), 0.0, scope)
    audio_BCN = torch.cat([LOUD, SOFT])
    plain = steered.run(audio_BCN)
    with steered.edit(PUSH, site="fine"):
        always = steered.run(audio_BCN)
    before = steered.model.module.passes
    with steered.edit(PUSH, site="fine", when=later):
        found = steered.run(audio_BCN)
    assert torch.equal(found, torch.cat([always[:1], plain[1:]]))
    # two sounds beforehand, and the batch
    assert steered.model.module.passes - before == 3


def test_beforehand_there_are_no_edits_and_nothing_is_recorded(steered: SteeredModel) -> None:
    later = Gate(GateProbe(torch.eye(WIDTH)[0], 0.0, None, site="coarse"))
    down = AddDirection(torch.full((WIDTH,), -99.0))
    with (
        steered.edit(down, site="fine"),
        steered.edit(PUSH, site="fine", when=later),
        Recorder(steered.model.module, [steered.model.site("coarse")]) as recorder,
    ):
        steered.run(LOUD)
        recorded = recorder.take()["coarse"]
    with steered.edit(down, site="fine"), steered.edit(PUSH, site="fine"):
        assert torch.equal(recorded, seen(steered, "coarse", LOUD))


def test_what_is_random_stays_what_it_is(steered: SteeredModel) -> None:
    later = Gate(GateProbe(torch.eye(WIDTH)[0], 99.0, None, site="coarse"), 1000.0)

    def noisy(module: Any, args: Any, output: Tensor) -> Tensor:
        return output + torch.randn(output.shape)

    handle = steered.model.module.coarse.register_forward_hook(noisy)
    try:
        torch.manual_seed(5)
        plain = steered.run(LOUD)
        torch.manual_seed(5)
        with steered.edit(PUSH, site="fine", when=later):
            assert torch.equal(steered.run(LOUD), plain)
    finally:
        handle.remove()


class Windows(Small):
    """Takes its sound in windows of 0.2 s."""

    def __init__(self) -> None:
        super().__init__()
        for name, site in list(self.sites.items()):
            self.sites[name] = Site(name, site.module, width=WIDTH, frame_rate=site.frame_rate, chunk_s=0.2)

    def _run(self, audio_BCN: Tensor) -> Tensor:
        outputs = []
        for start in range(0, audio_BCN.shape[-1], 200):
            with at_time(start / 1000), sound_until(audio_BCN.shape[-1] / 1000):
                outputs.append(self.module(audio_BCN[..., start : start + 200]))
        return torch.cat(outputs, dim=2)


@pytest.mark.parametrize("at", ["fine", "coarse"])
@pytest.mark.parametrize("site", ["fine", "coarse"])
def test_scopes_over_windows(at: str, site: str, random_sae: Callable[..., SAE]) -> None:
    """A soft, a loud and a little soft sound: by clip open everywhere, by window in the second, by seconds where it is
    loud; wherever the gate is."""
    model = Windows()
    steered = SteeredModel(model, check=False)
    audio_BCN = torch.cat([SOFT[..., :200], 3 * LOUD[..., :200], SOFT[..., :200]], dim=2)
    plain = steered.run(audio_BCN)
    with steered.edit(PUSH, site=site):
        always = steered.run(audio_BCN)
    probe = GateProbe(torch.eye(WIDTH)[0], 0.0, None, site=at)
    for scope, opens in (("clip", [True] * 3), ("window", [False, True, False]), (0.02, [False, True, False])):
        with steered.edit(PUSH, site=site, when=Gate(probe, 0.0, scope)):  # type: ignore[arg-type]
            found = steered.run(audio_BCN)
            again = steered.run(torch.cat([audio_BCN, -audio_BCN]))
        for n, one in enumerate(opens):
            part = slice(200 * n, 200 * (n + 1))
            assert torch.equal(found[..., part], (always if one else plain)[..., part]), (scope, n)
        assert torch.equal(again[:1], found)
    with steered.edit(PUSH, site=site, when=Gate(probe, 0.5)):
        assert torch.equal(steered.run(audio_BCN), plain)


def test_a_clip_is_decided_once(random_sae: Callable[..., SAE]) -> None:
    model = Windows()
    steered = SteeredModel(model, check=False)
    with steered.edit(PUSH, site="fine", when=Gate(LEVEL)):
        steered.run(LOUD)  # two windows
    assert model.module.passes == 4
    model.module.passes = 0
    with steered.edit(PUSH, site="fine", when=Gate(LEVEL)):
        steered.run(LOUD[..., :200])  # one, which is all that the decision needs
    assert model.module.passes == 1


# --- several edits, and what is asked ---


def test_gates_of_their_own(steered: SteeredModel) -> None:
    loud, soft = Gate(LEVEL), ~Gate(LEVEL)
    first, second = Scale([3], 2.0, when=loud), Scale([3], 3.0, when=soft)
    for sound, one in ((LOUD, first), (SOFT, second)):
        with steered.edit(one.conditional(None), site="fine"):
            expected = steered.run(sound)
        with steered.edit(first, second, site="fine"):
            assert torch.equal(steered.run(sound), expected)
        # an edit's own gate goes before the one of all
        with steered.edit(one, site="fine", when=Gate(LEVEL, 1e9)):
            assert torch.equal(steered.run(sound), expected)


def test_an_edit_without_a_gate_beside_one_with(steered: SteeredModel) -> None:
    with steered.edit({"fine": [Ablate([1]), Scale([3], 2.0, when=Gate(LEVEL))], "coarse": Ablate([2])}):
        found = steered.run(SOFT)
    with steered.edit({"fine": Ablate([1]), "coarse": Ablate([2])}):
        assert torch.equal(steered.run(SOFT), found)


@pytest.mark.parametrize("edits", [[], [Scale([3], 2.0)]])
def test_a_reconstruction_behind_a_gate(steered: SteeredModel, edits: list[Any]) -> None:
    plain = steered.run(SOFT)
    with steered.edit(*edits, site="fine", mode="reconstruct"):
        expected = steered.run(LOUD)
    with steered.edit(*edits, site="fine", mode="reconstruct", when=Gate(LEVEL)):
        assert torch.equal(steered.run(SOFT), plain)
        assert torch.equal(steered.run(LOUD), expected)
    with pytest.raises(EditError, match="takes one gate for all edits"):
        steered.changes(Ablate([1]), Ablate([2], when=Gate(LEVEL)), site="fine", mode="reconstruct")


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "batchtopk", "gated", "topk"])
@pytest.mark.parametrize("rms_norm", [False, True])
def test_features_are_those_of_the_sae(activation: str, rms_norm: bool, random_sae: Callable[..., SAE]) -> None:
    model, sae = Small(), random_sae(activation, WIDTH, 20, rms_norm=rms_norm)
    steered = SteeredModel(model, sae, "fine", check=False)
    weights = torch.randn(1, 3)
    gate = Gate(GateProbe(weights, 0.5, [2, 11, 5], site="fine"))
    audio_BCN = noise(1)
    f_BTF = sae.encode(seen(steered, "fine", audio_BCN))
    expected = float(f_BTF[..., [2, 11, 5]].mean((0, 1)) @ weights[0]) + 0.5
    assert float(gate_logits(steered, gate, Clip(audio_BCN[0], 1000))[0]) == pytest.approx(expected, abs=1e-5)


def test_a_few_features_cost_a_few(steered: SteeredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder is never run in full, and only the named columns are taken."""
    asked: list[int] = []
    picked = SAE.picked

    def counted(self: SAE, features: Tensor) -> Any:
        asked.append(len(features))
        return picked(self, features)

    def refused(*_: Any) -> Any:
        raise AssertionError("encoded in full")

    monkeypatch.setattr(SAE, "picked", counted)
    monkeypatch.setattr(SAE, "encode", refused)
    gate = Gate(GateProbe(torch.ones(1, 2), -1e6, [4, 9], site="fine"))
    with steered.edit(PUSH, site="coarse", when=gate):
        steered.run(noise(2))
    assert asked == [2]


def test_a_shut_gate_costs_no_edit(steered: SteeredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("edited")

    with steered.edit(PUSH, site="fine", when=Gate(LEVEL)):
        monkeypatch.setattr(AddDirection, "change", refused)
        steered.run(SOFT)
        with pytest.raises(AssertionError, match="edited"):
            steered.run(LOUD)


def test_half_precision_and_moves(steered: SteeredModel) -> None:
    gate = Gate(GateProbe(torch.ones(1, 2), -0.01, [4, 9], site="fine"))
    with steered.edit(Ablate([1]), site="coarse", when=gate):
        steered.to(torch.float64)
        assert steered.run(LOUD.double()).dtype == torch.float64


# --- where it cannot be told ---


def test_a_part_of_a_sound_is_no_clip(steered: SteeredModel) -> None:
    told = "a gate by clip needs to know the whole sound, and small gets a part here"
    with steered.edit(PUSH, site="fine", when=Gate(LEVEL)), at_time(0.0), pytest.raises(EditError, match=told):
        steered.run(LOUD)
    with steered.edit(PUSH, site="fine", when=Gate(LEVEL, 0.0, "window")), at_time(0.0):
        steered.run(LOUD)
    # sounds that fit one pass are known whole, stretches of longer ones are not
    sound = Clip(LOUD[0], 1000)
    with steered.edit(PUSH, site="fine", when=Gate(LEVEL)):
        (one,) = capture(steered.model, [sound], ["fine"])
        with pytest.raises(EditError, match="needs to know the sound before it is there"):
            list(capture(steered.model, [sound], ["fine"], max_s=0.2))
    assert torch.equal(one.activations["fine"], seen(steered, "fine", LOUD) + PUSH.vector)


def test_calls_of_the_module_itself(steered: SteeredModel) -> None:
    """Nobody says whose they are: each row decides, and a later gate cannot."""
    plain = steered.model.module(torch.cat([LOUD, SOFT]))
    with steered.edit(PUSH, site="coarse", when=Gate(LEVEL)):
        found = steered(torch.cat([LOUD, SOFT]))
    assert torch.equal(found[1], plain[1]) and not torch.equal(found[0], plain[0])
    later = Gate(GateProbe(torch.eye(WIDTH)[0], site="coarse"))
    with steered.edit(PUSH, site="fine", when=later), pytest.raises(EditError, match="was not passed before"):
        steered(LOUD)


def test_a_module_of_no_family() -> None:
    net = Net()
    steered = SteeredModel(net)
    gate = Gate(GateProbe(torch.eye(WIDTH)[0], site="fine"))
    plain = net(torch.cat([LOUD, SOFT]))
    with steered.edit(PUSH, site="coarse", when=gate):
        found = steered(torch.cat([LOUD, SOFT]))
    assert torch.equal(found[1], plain[1]) and not torch.equal(found[0], plain[0])
    with pytest.raises(EditError, match="a gate's seconds have no meaning"):
        steered.changes(PUSH, site="coarse", when=Gate(gate.probe, 0.0, 1.0))


def test_gates_that_do_not_fit(steered: SteeredModel) -> None:
    def refused(gate: Gate, message: str, site: str = "fine") -> None:
        with pytest.raises(EditError, match=message):
            steered.changes(PUSH, site=site, when=gate)

    refused(Gate(GateProbe(torch.ones(1, 1), 0.0, [20], site="fine")), "there is no feature 20")
    refused(Gate(GateProbe(torch.ones(1, 1), 0.0, [2], site="out")), "reads features at 'out', where there is no SAE")
    steered.model.sites["tokens"] = Site("tokens", "out")
    refused(Gate(GateProbe(torch.ones(1, 6), site="tokens")), "'tokens' has no frame rate")
    refused(Gate(LEVEL, 0.0, 1.0), "site 'tokens' has no frame rate: an edit there takes a gate by clip", "tokens")
    narrow = Gate(GateProbe(torch.ones(1, 5), site="fine"))
    told = "reads activations 5 wide, but site 'fine' is 6 wide"
    with steered.edit(PUSH, site="fine", when=narrow), pytest.raises(EditError, match=told):
        steered.run(LOUD)


def test_a_gate_for_another_model_is_warned_of(steered: SteeredModel) -> None:
    steered.model.name = "whisper:tiny"
    gate = Gate(GateProbe(torch.eye(WIDTH)[0], site="fine", model="whisper:base"))
    with pytest.warns(UserWarning, match="the gate at 'fine' was made for whisper:base, not for whisper:tiny"):
        steered.changes(PUSH, site="fine", when=gate)


# --- threads, streams ---


def test_threads_do_not_decide_for_each_other(steered: SteeredModel) -> None:
    sounds = [LOUD, SOFT, 2 * LOUD, 0.5 * SOFT]
    handle = steered.apply(PUSH, site="coarse", when=Gate(LEVEL, 0.0, "window"))
    try:
        expected = [steered.run(sound) for sound in sounds]
        found: dict[int, list[Tensor]] = {}
        ready = threading.Barrier(len(sounds))

        def work(number: int) -> None:
            ready.wait()
            found[number] = [steered.run(sounds[number]) for _ in range(20)]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(sounds))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        handle.remove()
    for number, one in enumerate(expected):
        assert all(torch.equal(each, one) for each in found[number])


def test_a_stream_decides_by_seconds_and_by_block(steered: SteeredModel) -> None:
    model = steered.model
    audio_CN = torch.cat([SOFT, LOUD, SOFT], dim=2)[0].repeat(2, 1)
    stream = Stream(model, block_s=0.1, lookahead_s=0.0)
    plain = torch.cat([stream.push(audio_CN), stream.finish()], dim=1)
    for scope in (0.02, "window"):
        stream = Stream(model, block_s=0.1, lookahead_s=0.0)
        with steered.edit(PUSH, site="fine", when=Gate(LEVEL, 0.0, scope)):  # type: ignore[arg-type]
            found = torch.cat([*map(stream.push, audio_CN.split(70, dim=1)), stream.finish()], dim=1)
        same_N = (found == plain).all(0)
        # far from the ends of the loud sound, where a block or a cross-fade may have both
        assert not same_N[700:740].any() and same_N[:300].all() and same_N[1100:].all()
    stream = Stream(model, block_s=0.1, lookahead_s=0.0)
    with steered.edit(PUSH, site="fine", when=Gate(LEVEL)), pytest.raises(EditError, match="in a stream use a gate"):
        stream.push(audio_CN)


def test_the_edit_itself_is_the_one_of_the_site(steered: SteeredModel) -> None:
    """Not only the difference: what an open gate lets through is what `site_edit` gives."""
    x_BTD = seen(steered, "fine", LOUD)
    expected = site_edit(steered.saes["fine"], EDITS["features"])(x_BTD, Frames.of(x_BTD, 100.0, 0.0))
    with steered.edit(*EDITS["features"], site="fine", when=Gate(LEVEL)):
        assert torch.equal(seen(steered, "fine", LOUD), expected)
