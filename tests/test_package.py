"""The package as it is published: one version everywhere, what its files say, and what its requirements bring along."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


# --- what its files say ---


def test_one_version() -> None:
    latest = re.search(r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$", CHANGELOG, re.MULTILINE)
    assert latest is not None and latest[1] == PROJECT["version"]
    assert read_yaml("CITATION.cff")["version"] == PROJECT["version"]
    code = [path for name in ("hooks", "steer", "evaluation", "apps") for path in (ROOT / name).rglob("*.py")]
    assert not [path for path in code if re.search(r"__version__ = [\"']", path.read_text("utf-8"))]


def test_the_changelog_has_each_version_once_and_its_kinds_of_change() -> None:
    versions = re.findall(r"^## \[(.+?)\]", CHANGELOG, re.MULTILINE)
    assert len(set(versions)) == len(versions) >= 2
    kinds = set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_says_what_the_package_says() -> None:
    citation = read_yaml("CITATION.cff")
    assert citation["license"] == PROJECT["license"] and citation["cff-version"] == "1.2.0"
    assert [one["name"] for one in citation["authors"]] == [one["name"] for one in PROJECT["authors"]]


def test_the_python_versions_are_those_of_the_workflows() -> None:
    said = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    assert said[0] == PROJECT["requires-python"].removeprefix(">=")
    for name, job in (("tests", "test"), ("release", "try")):
        workflow = read_yaml(f".github/workflows/{name}.yml")
        assert workflow["jobs"][job]["strategy"]["matrix"]["python"] == said


def test_the_hooks_of_commits_run_what_lint_runs() -> None:
    hooks = [hook for one in read_yaml(".pre-commit-config.yaml")["repos"] for hook in one["hooks"]]
    tools = {hook["entry"].split()[0].rpartition("/")[2] for hook in hooks}
    assert tools == set(re.findall(r"\$\(BIN\)/(ruff|mypy|lint-imports)", (ROOT / "Makefile").read_text("utf-8")))


@pytest.mark.parametrize("name", ["bug_report", "model_or_format"])
def test_issue_forms(name: str) -> None:
    form = read_yaml(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"] and form["description"]
    ids = [part["id"] for part in form["body"]]
    assert len(set(ids)) == len(ids) >= 3
    assert {part["type"] for part in form["body"]} <= {"textarea", "input", "dropdown", "checkboxes", "markdown"}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/install.md"])
def test_what_the_guides_name_is_there(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    folders = "hooks|steer|evaluation|apps|tests|docs|training|benchmarks"
    named = re.findall(rf"`((?:{folders})/[\w/]*(?:\.\w+)?)`", text)
    named += [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert len(named) > 2
    base = (ROOT / name).parent
    assert not [one for one in named if not ((ROOT / one).exists() or (base / one).exists())]


def test_the_contributors_registries_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for name, file in (
        ("ACTIVATIONS", "steer/activations.py"),
        ("OBJECTIVES", "steer/objectives.py"),
        ("RECIPE_EDITS", "steer/recipe_edits.py"),
        ("GOALS", "steer/goals.py"),
        ("COMMANDS", "apps/cli.py"),
        ("LIBRARIES", "apps/installation.py"),
    ):
        assert f"`{name}`" in text and re.search(rf"^{name}\b", (ROOT / file).read_text("utf-8"), re.MULTILINE), name


# --- what its requirements bring along ---


def brought(name: str, extras: frozenset[str], found: dict[str, set[str]], within: str = "") -> None:
    """Adds {package: those that require it} of all that a package and its extras require, torch's own left out."""
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for one in map(Requirement, texts):
        environment = {str(key): str(value) for key, value in default_environment().items()}
        if one.marker and not any(one.marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)):
            continue
        needed = canonicalize_name(one.name)
        known = needed in found and not one.extras
        found.setdefault(needed, set()).add(within or name)
        if needed != "torch" and not known:
            brought(one.name, frozenset(one.extras), found, needed)


def test_nothing_but_torch_requires_cuda() -> None:
    """Which docs/install.md says: with a CPU build of torch none of it is installed, but triton by openai-whisper."""
    found: dict[str, set[str]] = {}
    brought("audiosteer", frozenset(set(PROJECT["optional-dependencies"]) - {"bench"}), found)
    assert {"torch", "transformers", "openai-whisper", "gradio", "librosa"} <= set(found)
    of_cuda = {name: by for name, by in found.items() if re.match(r"nvidia-|cuda-|triton$", name)}
    assert of_cuda in ({}, {"triton": {"openai-whisper"}})
