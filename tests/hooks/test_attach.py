from __future__ import annotations

import contextvars
import threading
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import Handle, Site, SiteError, at_time, attach
from hooks.attach import attached, unhooked
from hooks.timing import current_time, now

Pair = namedtuple("Pair", ["hidden", "cache"])


class Block(nn.Module):
    """Takes its activation by position or by name and gives it as `shape` says."""

    def __init__(self, shape: Callable[[Tensor], Any] = lambda x: x) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.shape = shape

    def forward(self, hidden: Tensor, scale: float = 1.0) -> Any:
        return self.shape(self.linear(hidden) * scale)


class Model(nn.Module):
    def __init__(self, by_name: bool = False) -> None:
        super().__init__()
        self.first, self.second = Block(), Block()
        self.by_name = by_name

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = self.first(x_BTD)
        return self.second(hidden=x_BTD, scale=2.0) if self.by_name else self.second(x_BTD, scale=2.0)


HOOK_DICTS = [name for name in vars(nn.Module()) if "hook" in name and isinstance(getattr(nn.Module(), name), dict)]


def hooks_of(model: nn.Module) -> list[dict[int, Any]]:
    return [dict(getattr(module, name)) for module in model.modules() for name in HOOK_DICTS]


def double(x_BTD: Tensor) -> Tensor:
    return 2 * x_BTD


def crash(x_BTD: Tensor) -> Tensor:
    raise RuntimeError("boom")


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def x_BTD() -> Tensor:
    return torch.randn(2, 5, 4)


def test_a_change_at_an_output(model: Model, x_BTD: Tensor) -> None:
    with attach(model, Site("s", "first"), double):
        changed = model(x_BTD)
    assert torch.equal(changed, model.second(2 * model.first(x_BTD), scale=2.0))


@pytest.mark.parametrize(("by_name", "element"), [(False, None), (False, 0), (True, None), (True, 0), (True, "hidden")])
def test_a_change_at_an_input_by_position_and_by_keyword(by_name: bool, element: Any, x_BTD: Tensor) -> None:
    model = Model(by_name)
    with attach(model, Site("s", "second", port="input", element=element), double):
        changed = model(x_BTD)
    assert torch.equal(changed, model.second(2 * model.first(x_BTD), scale=2.0))


def test_a_hook_that_only_looks_changes_nothing(model: Model, x_BTD: Tensor) -> None:
    seen: list[Tensor] = []
    with attach(model, Site("s", "first"), seen.append):
        assert torch.equal(model(x_BTD), Model.forward(model, x_BTD))
    assert len(seen) == 2


def test_channels_first_modules_are_shown_frames_first() -> None:
    model = nn.Sequential(nn.Conv1d(3, 6, 3, padding=1))
    audio_BCT = torch.randn(2, 3, 10)
    plain_BDT = model(audio_BCT)
    weight_D = torch.arange(6.0)
    with attach(model, Site("s", "0", "BDT"), lambda x_BTD: x_BTD + weight_D):
        changed_BDT = model(audio_BCT)
    assert torch.equal(changed_BDT, plain_BDT + weight_D[:, None])


@pytest.mark.parametrize(
    "shape",
    [lambda x: (x, None), lambda x: Pair(x, 1), lambda x: [x, 1], lambda x: {"cache": 1, "hidden": x}],
    ids=["tuple", "namedtuple", "list", "dict"],
)
def test_outputs_keep_their_type(shape: Callable[[Tensor], Any], x_BTD: Tensor) -> None:
    model = Block(shape)
    plain = model(x_BTD)
    site = Site("s", "")
    with attach(model, site, double):
        changed = model(x_BTD)
    assert type(changed) is type(plain)
    assert torch.equal(site.read(changed), 2 * site.read(plain))


def test_a_model_output_keeps_its_type(x_BTD: Tensor) -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs", reason="ModelOutput is transformers'")
    model = Block(lambda x: outputs.BaseModelOutput(last_hidden_state=x))
    with attach(model, Site("s", "", element="last_hidden_state"), double):
        changed = model(x_BTD)
    assert isinstance(changed, outputs.BaseModelOutput)
    assert torch.equal(changed.last_hidden_state, 2 * model(x_BTD).last_hidden_state)


def test_nested_hooks_act_in_the_order_of_attaching(model: Model, x_BTD: Tensor) -> None:
    plain = model.first(x_BTD)
    with attach(model, Site("s", "first"), double), attach(model, Site("s", "first"), lambda x_BTD: x_BTD + 1):
        assert torch.equal(model.first(x_BTD), 2 * plain + 1)
        with attach(model, Site("s", "first"), torch.neg):
            assert torch.equal(model.first(x_BTD), -(2 * plain + 1))
        assert torch.equal(model.first(x_BTD), 2 * plain + 1)
    assert torch.equal(model.first(x_BTD), plain)


@pytest.mark.parametrize("port", ["output", "input"])
def test_removing_leaves_the_module_as_it_was(model: Model, port: Any, x_BTD: Tensor) -> None:
    model.first.register_forward_hook(lambda module, args, output: None)
    before, plain = hooks_of(model), model(x_BTD)
    handle = attach(model, Site("s", "first", port=port), double)
    assert hooks_of(model) != before
    handle.remove()
    assert hooks_of(model) == before
    handle.remove()
    assert hooks_of(model) == before
    assert torch.equal(model(x_BTD), plain)


def test_an_exception_in_forward_leaves_only_the_users_own_hooks(model: Model, x_BTD: Tensor) -> None:
    calls: list[str] = []
    model.first.register_forward_pre_hook(lambda module, args: calls.append("pre"))
    model.second.register_forward_hook(lambda module, args, output: calls.append("post"))
    before = hooks_of(model)
    with (
        pytest.raises(RuntimeError, match="boom"),
        attach(model, Site("s", "first"), double),
        attach(model, Site("s", "second"), crash),
    ):
        model(x_BTD)
    assert hooks_of(model) == before
    calls.clear()
    model(x_BTD)
    assert calls == ["pre", "post"]


def test_an_exception_in_the_module_itself(model: Model, x_BTD: Tensor) -> None:
    with pytest.raises(RuntimeError, match="shapes"), attach(model, Site("s", "first"), double):
        model(torch.randn(2, 5, 7))
    assert torch.equal(model(x_BTD), Model.forward(model, x_BTD))
    assert not any(hooks_of(model))


def test_bad_sites_leave_no_hook(model: Model, x_BTD: Tensor) -> None:
    with pytest.raises(SiteError, match="no module 'third'"):
        attach(model, Site("s", "third"), double)
    with pytest.raises(SiteError, match="no element 4"), attach(model, Site("s", "first", element=4), double):
        model(x_BTD)
    with pytest.raises(SiteError, match="shape"), attach(model, Site("s", "first"), lambda x_BTD: x_BTD[:, 1:]):
        model(x_BTD)
    assert not any(hooks_of(model))


def test_two_threads_get_exactly_what_they_get_alone(model: Model) -> None:
    sites = [Site("a", "first"), Site("b", "second", port="input")]
    changes = [double, lambda x_BTD: x_BTD - 3]
    inputs = [torch.randn(1, 6, 4), torch.randn(1, 6, 4)]

    def run(index: int) -> Tensor:
        with attach(model, sites[index], changes[index]), torch.no_grad():
            return model(inputs[index])

    alone = [run(0), run(1)]
    wrong: list[int] = []
    barrier = threading.Barrier(3)

    def work(index: int) -> None:
        barrier.wait()
        for _ in range(400):
            if not torch.equal(run(index), alone[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    plain = Model.forward(model, inputs[0]).detach()
    barrier.wait()
    # a third one that never attached anything
    for _ in range(400):
        with torch.no_grad():
            assert torch.equal(model(inputs[0]), plain)
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not any(hooks_of(model))


def test_a_hook_does_not_act_in_a_thread_that_did_not_attach_it(model: Model, x_BTD: Tensor) -> None:
    plain, seen = model(x_BTD), []
    with attach(model, Site("s", "first"), double):
        thread = threading.Thread(target=lambda: seen.append(model(x_BTD)))
        thread.start()
        thread.join()
    assert torch.equal(seen[0], plain)


def test_a_hook_of_the_whole_process_acts_in_threads_that_start_later(model: Model, x_BTD: Tensor) -> None:
    plain = model(x_BTD)
    for port in ("output", "input"):
        site, seen = Site("s", "first", port=port), []  # type: ignore[arg-type]
        handle = contextvars.Context().run(attach, model, site, double, everywhere=True)
        thread = threading.Thread(target=lambda seen=seen: seen.append(model(x_BTD)))
        thread.start()
        thread.join()
        assert torch.equal(seen[0], model(x_BTD)) and not torch.equal(seen[0], plain)
        assert contextvars.Context().run(attached, model)
        handle.remove()
        assert torch.equal(model(x_BTD), plain) and not attached(model)
    assert not any(hooks_of(model))


def test_unhooked_nothing_acts_that_was_attached_before(model: Model, x_BTD: Tensor) -> None:
    plain, site = model(x_BTD), Site("s", "first")
    with attach(model, site, double), attach(model, site, double, everywhere=True):
        both = model(x_BTD)
        with unhooked():
            assert torch.equal(model(x_BTD), plain) and not attached(model)
            with attach(model, site, double):
                assert not torch.equal(model(x_BTD), plain)
        assert torch.equal(model(x_BTD), both)


def test_only_what_this_context_attached_counts_as_attached(model: Model) -> None:
    model.second.linear.register_forward_hook(lambda module, args, output: None)
    assert not attached(model)
    for port in ("output", "input"):
        with attach(model, Site("s", "first", port=port), double):  # type: ignore[arg-type]
            assert attached(model) and attached(model.first)
            assert not attached(model.second) and not attached(model.first.linear)
            assert not contextvars.Context().run(attached, model)
            copied = contextvars.copy_context()
            assert copied.run(attached, model)
        assert not attached(model) and not copied.run(attached, model)


def test_a_copied_context_carries_the_hook_along(model: Model, x_BTD: Tensor) -> None:
    with attach(model, Site("s", "first"), double):
        context = contextvars.copy_context()
        assert torch.equal(context.run(model, x_BTD), model(x_BTD))
    # removed meanwhile: the copy still believes in it, the module does not
    assert torch.equal(context.run(model, x_BTD), model(x_BTD))


def test_a_hook_removed_while_its_module_runs(model: Model, x_BTD: Tensor) -> None:
    site, plain = Site("s", "second", port="input"), model.second(x_BTD)
    handles: list[Handle] = []

    def remove_next(x_BTD: Tensor) -> None:
        # as another thread would: what is alive in this context stays
        contextvars.Context().run(handles[1].remove)

    handles += [attach(model, site, remove_next), attach(model, site, double)]
    assert torch.equal(model.second(x_BTD), plain)
    handles[0].remove()
    assert not any(hooks_of(model))


def test_at_time_nests_and_is_reset_after_an_exception() -> None:
    assert current_time() is None
    with at_time(1.5):
        with pytest.raises(RuntimeError), at_time(2.0):
            assert current_time() == 2.0
            raise RuntimeError
        assert current_time() == 1.5
    assert current_time() is None


def test_what_is_carried_is_the_callers_own_dict_and_ends_with_the_block() -> None:
    assert now().carry is None
    carry: dict[str, object] = {}
    for start in (0.0, 1.0):
        with at_time(start, carry):
            assert now().carry is carry
            with at_time(start + 0.5):  # a part of a chunk, by a model that says the time itself
                assert now().carry is None
    assert now().carry is None
