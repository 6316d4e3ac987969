from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hooks import Site, SiteError
from hooks.site import check_hookable

Pair = namedtuple("Pair", ["hidden", "cache"])
x_BTD = torch.arange(24.0).view(2, 3, 4)
OTHER = torch.arange(2)


def model_output(hidden: Tensor) -> Any:
    outputs = pytest.importorskip("transformers.modeling_outputs", reason="ModelOutput is transformers'")
    return outputs.BaseModelOutput(last_hidden_state=hidden, hidden_states=(hidden,))


HOLDERS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x, "more", None),
    "tuple, not first": lambda x: (OTHER, None, x),
    "namedtuple": lambda x: Pair(x, OTHER),
    "list": lambda x: [x, OTHER],
    "dict": lambda x: {"cache": OTHER, "hidden": x},
    "ModelOutput": model_output,
}


def parts(value: Any) -> list[Any]:
    return list(value.values()) if hasattr(value, "values") else list(value)


@pytest.mark.parametrize("layout", ["BTD", "BDT"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_write_mirrors_what_the_module_gives(holder: str, layout: str) -> None:
    held = x_BTD if layout == "BTD" else x_BTD.transpose(1, 2)
    value = HOLDERS[holder](held)
    site = Site("s", "m", layout)
    assert torch.equal(site.read(value), x_BTD)
    changed = site.write(value, x_BTD + 1)
    assert type(changed) is type(value)
    assert torch.equal(site.read(changed), x_BTD + 1)
    assert torch.equal(site.read(value), x_BTD)  # the model's own value is not written to
    if not isinstance(value, Tensor):
        assert len(parts(changed)) == len(parts(value))
        same = [a is b for a, b in zip(parts(changed), parts(value), strict=True)]
        assert same.count(False) == 1


def test_a_model_output_is_changed_as_field_key_and_item() -> None:
    changed = Site("s", "m").write(model_output(x_BTD), x_BTD + 1)
    for seen in (changed.last_hidden_state, changed["last_hidden_state"], changed[0]):
        assert torch.equal(seen, x_BTD + 1)


@pytest.mark.parametrize("element", [2, -1])
def test_element_by_index(element: int) -> None:
    value = (x_BTD, None, x_BTD + 1)
    site = Site("s", "m", element=element)
    assert torch.equal(site.read(value), x_BTD + 1)
    changed = site.write(value, x_BTD + 2)
    assert changed[0] is x_BTD
    assert torch.equal(changed[2], x_BTD + 2)


@pytest.mark.parametrize("element", ["hidden", 1])
def test_element_of_a_dict_by_name_or_position(element: str | int) -> None:
    value = {"first": x_BTD, "hidden": x_BTD + 1}
    site = Site("s", "m", element=element)
    changed = site.write(value, x_BTD + 2)
    assert torch.equal(site.read(value), x_BTD + 1)
    assert changed["first"] is x_BTD
    assert torch.equal(changed["hidden"], x_BTD + 2)


def test_the_dtype_of_the_model_stays() -> None:
    assert Site("s", "m").write(x_BTD.half(), x_BTD + 1).dtype == torch.float16


@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    layout=st.sampled_from(["BTD", "BDT"]),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
)
def test_writing_what_was_read_changes_nothing(shape: tuple[int, ...], layout: Any, before: int, after: int) -> None:
    value = (*([None] * before), torch.randn(shape), *([OTHER] * after))
    site = Site("s", "m", layout)
    assert torch.equal(site.write(value, site.read(value))[before], value[before])


@pytest.mark.parametrize(
    ("site", "value", "message"),
    [
        (Site("s", "m"), (OTHER, None), "no tensor in the output"),
        (Site("s", "m"), torch.zeros(2, 3), "3 axes"),
        (Site("s", "m", element=3), (x_BTD,), "no element 3"),
        (Site("s", "m", element=1), x_BTD, "no element 1"),
        (Site("s", "m", element="hidden"), {"other": x_BTD}, "no element 'hidden'"),
        (Site("s", "m", element=1), (x_BTD, "text"), "is not a tensor"),
        (Site("s", "m"), object(), "no element None"),
    ],
)
def test_an_activation_that_is_not_there(site: Site, value: Any, message: str) -> None:
    with pytest.raises(SiteError, match=message):
        site.read(value)


def test_a_change_of_another_shape_is_refused() -> None:
    with pytest.raises(SiteError, match=r"shape \[2, 3, 5\], the activation \[2, 3, 4\]"):
        Site("s", "m").write(x_BTD, torch.zeros(2, 3, 5))


def test_measured_fills_in_the_width_and_refuses_another() -> None:
    assert Site("s", "m").measured(x_BTD).width == 4
    assert Site("s", "m", width=4).measured(x_BTD).width == 4
    with pytest.raises(SiteError, match="declared 5 wide, but its activation is 4 wide"):
        Site("s", "m", width=5).measured(x_BTD)


def test_of_finds_modules_by_path_and_hints_at_near_ones() -> None:
    model = nn.ModuleDict({"encoder": nn.ModuleDict({"final_norm": nn.LayerNorm(4)})})
    site = Site.of(model, "encoder.final_norm", width=4)
    assert site.find(model) is model["encoder"]["final_norm"]
    assert (site.name, site.width) == ("encoder.final_norm", 4)
    assert Site.of(model, "").find(model) is model
    with pytest.raises(SiteError, match=r"no module 'decoder.final_norm'; did you mean encoder.final_norm"):
        Site.of(model, "decoder.final_norm")


class TestUnhookable:
    def test_torchscript(self) -> None:
        model = torch.jit.trace(nn.Sequential(nn.Linear(4, 4)), x_BTD)
        with pytest.raises(SiteError, match="TorchScript"):
            check_hookable(model, Site.of(model, "0"))

    def test_compiled_model_around_the_site(self) -> None:
        model = torch.compile(nn.Sequential(nn.Linear(4, 4)))
        with pytest.raises(SiteError, match="before torch.compile"):
            check_hookable(model, Site.of(model, "_orig_mod.0"))

    def test_module_compiled_in_place(self) -> None:
        model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)))
        model[0].compile()
        with pytest.raises(SiteError, match="0 is compiled"):
            check_hookable(model, Site.of(model, "0.0"))

    def test_plain_modules_pass(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        check_hookable(model, Site.of(model, "0"))
        check_hookable(model, Site.of(model, ""))
