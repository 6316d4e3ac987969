from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from hooks.family import Family
from hooks.registry import FAMILIES


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_what_a_family_needs_is_an_extra_of_the_package(family: Family) -> None:
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for name in ("", f"{family.types[0]}:x", "hf:x/y"):
        needs = family.needs(name)
        assert needs is None or needs[1] in extras


def test_the_library_is_the_one_that_opens_the_name() -> None:
    both = Family("x", types=("x", "XModel"), libraries=("ex", "transformers"), extra="some")
    assert both.needs("x:small") == both.needs("XModel:small") == ("ex", "some")
    assert both.needs("hf:who/x") == both.needs("a folder") == ("transformers", "some")
    assert Family("x", libraries=("transformers",), extra="e").needs("x:small") == ("transformers", "e")
    assert Family("x").needs("x:small") is None


def test_what_is_not_said_is_the_name() -> None:
    assert (Family("x").types, Family("x").extra) == (("x",), "x")
    assert (Family("x", types=("y",)).types, Family("x", extra="z").extra) == (("y",), "z")
