"""SAEs pushed to and fetched from a hub on this machine, through the library itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from steer.errors import SAEError
from steer.formats import CFG, WEIGHTS
from steer.formats.card import card_of
from steer.sae import SAE, SAEInfo
from tests.endpoint import READER, TOKEN, Hub, a_hub

X = torch.randn(20, 12, generator=torch.Generator().manual_seed(1))
INFO = SAEInfo(
    model="hf:facebook/hubert-base-ls960",
    site="encoder.8",
    sample_rate=16_000,
    frame_rate=50.0,
    data="LJ Speech | 24 h",
    license="Apache-2.0",
    metrics={"explained_variance": 0.93412, "l0": 5.0},
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with a_hub(tmp_path / "cache", monkeypatch) as hub:
        yield hub


@pytest.fixture
def sae(random_sae: Callable[..., SAE]) -> SAE:
    sae = random_sae("topk")
    sae.info = INFO
    return sae


def front(card: str) -> dict[str, Any]:
    _, matter, _ = card.split("---\n", 2)
    return yaml.safe_load(matter)


def same(a: SAE, b: SAE) -> bool:
    return torch.equal(a.encode(X), b.encode(X)) and torch.equal(a(X), b(X)) and a.info == b.info


def files(hub: Hub, name: str, revision: str = "main") -> dict[str, bytes]:
    repository = hub.repositories[name]
    return repository.commits[repository.find(revision) or ""]


def failing(message: str, call: Callable[..., Any], *args: Any, **options: Any) -> None:
    with pytest.raises(SAEError, match=message) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


class TestThereAndBack:
    def test_every_kind(self, hub: Hub, any_sae: SAE) -> None:
        any_sae.info = INFO
        url = any_sae.push_to_hub("me/sae", token=TOKEN)
        assert set(files(hub, "me/sae")) == {".gitattributes", "README.md", CFG, WEIGHTS}
        commit = hub.repositories["me/sae"].branches["main"]
        assert url == f"{hub.url}/me/sae/commit/{commit}"
        loaded = SAE.from_hub("me/sae")
        assert same(loaded, any_sae)
        assert (loaded.activation, loaded.k, loaded.rms_norm) == (any_sae.activation, any_sae.k, any_sae.rms_norm)
        # weights go as a large file, the rest in the commit
        assert [request for request in hub.requests if request.startswith("PUT /lfs/")]

    def test_several_share_a_repository(self, hub: Hub, random_sae: Callable[..., SAE]) -> None:
        one, two = random_sae("topk"), random_sae("relu", d_sae=24)
        one.push_to_hub("me/saes", "layers/1", token=TOKEN)
        two.push_to_hub("me/saes", "layers/2", token=TOKEN)
        assert set(files(hub, "me/saes")) == {
            *(".gitattributes", "README.md"),
            *(f"layers/{n}/{name}" for n in (1, 2) for name in ("README.md", CFG, WEIGHTS)),
        }
        assert files(hub, "me/saes")["README.md"] == files(hub, "me/saes")["layers/1/README.md"]
        assert same(SAE.from_hub("me/saes", "layers/1"), one)
        assert same(SAE.from_hub("me/saes", "layers/2/"), two)

    def test_only_the_folder_that_is_asked_for_is_fetched(self, hub: Hub, random_sae: Callable[..., SAE]) -> None:
        top, deep = random_sae("topk"), random_sae("relu")
        top.push_to_hub("me/saes", token=TOKEN)
        deep.push_to_hub("me/saes", "deep", token=TOKEN)
        sent = len(hub.requests)
        assert same(SAE.from_hub("me/saes"), top)
        assert not any("/deep/" in request for request in hub.requests[sent:])
        sent = len(hub.requests)
        assert same(SAE.from_hub("me/saes", "deep"), deep)
        assert not any(request.endswith(f"main/{WEIGHTS}") for request in hub.requests[sent:])

    def test_branches_and_revisions(self, hub: Hub, random_sae: Callable[..., SAE]) -> None:
        old, new, other = random_sae("topk"), random_sae("relu"), random_sae("jumprelu")
        old.push_to_hub("me/sae", token=TOKEN)
        first = hub.repositories["me/sae"].branches["main"]
        new.push_to_hub("me/sae", token=TOKEN)
        other.push_to_hub("me/sae", revision="trial", token=TOKEN)
        other.push_to_hub("me/sae", revision="trial", token=TOKEN)
        for revision, sae in ((None, new), ("main", new), (first, old), ("trial", other)):
            assert same(SAE.from_hub("me/sae", revision=revision), sae)

    def test_private(self, hub: Hub, sae: SAE, monkeypatch: pytest.MonkeyPatch) -> None:
        sae.push_to_hub("me/secret", private=True, token=TOKEN)
        assert hub.repositories["me/secret"].private
        failing("no such repository, or it is private", SAE.from_hub, "me/secret")
        assert same(SAE.from_hub("me/secret", token=READER), sae)
        monkeypatch.setenv("HF_TOKEN", READER)
        assert same(SAE.from_hub("me/secret"), sae)

    def test_in_a_process_of_its_own_with_the_librarys_variables(self, hub: Hub, sae: SAE, tmp_path: Path) -> None:
        """The other tests set what the library makes of them when it is imported."""
        sae.push_to_hub("me/sae", private=True, token=TOKEN)
        env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": READER}
        code = "from steer import SAE; print(SAE.from_hub('me/sae'))"
        run = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        assert run.stdout == f"{sae}\n", run.stderr
        assert list((tmp_path / "home" / "hub").rglob(WEIGHTS))

    def test_what_is_in_the_cache_opens_while_the_hub_is_down(self, hub: Hub, sae: SAE) -> None:
        sae.push_to_hub("me/sae", token=TOKEN)
        SAE.from_hub("me/sae")
        hub.faults["status"] = 503
        assert same(SAE.from_hub("me/sae"), sae)

    def test_pushing_nothing_new_is_no_commit(self, hub: Hub, sae: SAE) -> None:
        for _ in range(2):
            sae.push_to_hub("me/sae", "latent", token=TOKEN)
        assert same(SAE.from_hub("me/sae", "latent"), sae)


class TestErrors:
    def test_of_pushing(self, hub: Hub, sae: SAE) -> None:
        failing(
            r"hf:me/sae: could not be pushed \(the token is missing or not valid\); log in", sae.push_to_hub, "me/sae"
        )
        failing("token is missing or not valid", sae.push_to_hub, "me/sae", token="hf_wrong")
        failing(r"the token has no right to do that\); see http", sae.push_to_hub, "me/sae", token=READER)
        assert hub.repositories == {}
        failing("not the name of a repository", sae.push_to_hub, "a/b/c", token=TOKEN)
        for folder in ("../up", "/root", "a/../../b"):
            failing("is not a path inside a repository", sae.push_to_hub, "me/sae", folder, token=TOKEN)
        hub.faults["status"] = 500
        failing(r"could not be pushed \(the hub answered with error 500", sae.push_to_hub, "me/sae", token=TOKEN)
        hub.faults.clear()
        hub.go_down()
        failing(r"could not be pushed \(the hub cannot be reached", sae.push_to_hub, "me/sae", token=TOKEN)

    def test_of_fetching(self, hub: Hub, sae: SAE, tmp_path: Path) -> None:
        sae.push_to_hub("me/sae", "latent", token=TOKEN)
        failing("hf:me/none: .*there is no such repository", SAE.from_hub, "me/none")
        failing("hf:me/sae/latent: .*has no revision 'v9'", SAE.from_hub, "me/sae", "latent", revision="v9")
        failing("hf:me/sae/other: the repository has no other", SAE.from_hub, "me/sae", "other")
        failing(f"hf:me/sae: .*no {CFG}", SAE.from_hub, "me/sae")
        failing("is not a path inside a repository", SAE.from_hub, "me/sae", "../latent")
        hub.faults["status"] = 500
        failing(r"the hub answered with error 500\); try again later", SAE.from_hub, "me/sae", "latent")
        hub.faults.clear()
        hub.faults["flip"] = True
        failing("came with a wrong checksum", SAE.from_hub, "me/sae", "latent")
        hub.faults.clear()
        hub.faults["cut"] = 100
        failing("cut short, and nothing of it was kept|cannot be reached", SAE.from_hub, "me/sae", "latent")
        hub.faults.clear()
        assert same(SAE.from_hub("me/sae", "latent"), sae)

    def test_a_pickle_from_the_hub_is_not_run(self, hub: Hub, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[object, ...]:
                return Path.touch, (tmp_path / "sprung",)

        torch.save({"encoder.weight": Trap()}, tmp_path / "ae.pt")
        hub.add("me/trap", {"ae.pt": (tmp_path / "ae.pt").read_bytes(), "config.json": b"{}"})
        failing("hf:me/trap: ", SAE.from_hub, "me/trap")
        assert not (tmp_path / "sprung").exists()


class TestCard:
    def test_says_what_it_is_and_loads_in_two_lines(self, hub: Hub, sae: SAE) -> None:
        sae.push_to_hub("me/sae", "hubert/8", token=TOKEN)
        card = files(hub, "me/sae")["README.md"].decode()
        assert front(card) == {
            "license": "apache-2.0",
            "library_name": "audiosteer",
            "tags": ["audiosteer", "sparse-autoencoder", "interpretability", "audio", "saelens"],
            "base_model": "facebook/hubert-base-ls960",
        }
        assert "# Sparse autoencoder for `encoder.8` of `hf:facebook/hubert-base-ls960`\n" in card
        for row in (
            "features | 40",
            "activation | topk",
            "k | 5",
            "frame rate | 50 Hz",
            "width of the activation | 12",
        ):
            assert f"| {row} |" in card
        assert r"| data | LJ Speech \| 24 h |" in card
        assert "| explained_variance | 0.9341 |" in card
        code = card.split("```python\n")[1].split("```")[0]
        assert len(code.splitlines()) == 2
        found: dict[str, Any] = {}
        exec(code, found)
        assert same(found["sae"], sae)

    @pytest.mark.parametrize(
        ("license", "expected"),
        [
            ("CC0-1.0", {"license": "cc0-1.0"}),
            ("CC BY 4.0, some clips", {"license": "other", "license_name": "cc-by-4.0,-some-clips"}),
            ("x: [y\n", {"license": "other", "license_name": "x:-[y"}),
            ("", {}),
        ],
    )
    def test_licenses(self, license: str, expected: dict[str, str], sae: SAE) -> None:
        sae.info = SAEInfo(model="starter:codec", license=license)
        assert {key: value for key, value in front(card_of(sae, "me/sae")).items() if "license" in key} == expected
        assert "base_model" not in front(card_of(sae, "me/sae"))

    def test_sae_lens_is_only_promised_where_it_opens_the_folder(self, random_sae: Callable[..., SAE]) -> None:
        for rms_norm in (False, True):
            card = card_of(random_sae("topk", rms_norm=rms_norm), "me/sae")
            assert ("saelens" in front(card)["tags"]) is ("SAELens" in card) is not rms_norm

    def test_an_sae_that_says_nothing_of_itself(self, random_sae: Callable[..., SAE]) -> None:
        card = card_of(random_sae("relu"), "me/sae")
        assert front(card)["library_name"] == "audiosteer"
        assert "\n# Sparse autoencoder\n" in card
        assert "Measured" not in card
        assert "None" not in card

    def test_the_folder_has_what_sae_lens_asks_for(self, hub: Hub, sae: SAE) -> None:
        sae.push_to_hub("me/sae", token=TOKEN)
        cfg = json.loads(files(hub, "me/sae")[CFG])
        assert cfg["metadata"] == {"model_name": INFO.model, "hook_name": INFO.site}


# --- where and in what it is loaded, and several at once ---


def test_it_loads_in_a_dtype(sae: SAE, tmp_path: Path) -> None:
    loaded = SAE.load(sae.save(tmp_path / "sae"), dtype=torch.bfloat16)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.bfloat16}
    assert torch.equal(loaded.W_dec, sae.W_dec.bfloat16())
    assert SAE.load(tmp_path / "sae", device="meta").W_dec.device.type == "meta"
    with pytest.raises(SAEError, match=r"floating-point dtype, not in torch\.int8"):
        SAE.load(tmp_path / "sae", dtype=torch.int8)
    with pytest.raises(SAEError, match="cannot be put on device 'nowhere'"):
        SAE.load(tmp_path / "sae", device="nowhere")


def test_all_saes_of_a_folder(sae: SAE, random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    other = random_sae("relu")
    sae.save(tmp_path / "one")
    other.save(tmp_path / "encoder.2")
    (tmp_path / "activations").mkdir()
    (tmp_path / "metrics.json").write_text("{}")
    found = SAE.load_all(tmp_path, dtype=torch.float64)
    assert list(found) == ["encoder.2", "encoder.8"]  # the second one says where it belongs
    assert torch.equal(found["encoder.8"].W_enc, sae.W_enc.double())
    sae.save(tmp_path / "two")
    with pytest.raises(SAEError, match="several SAEs for site 'encoder.8'"):
        SAE.load_all(tmp_path)


def test_all_saes_of_one_seed(sae: SAE, random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    for seed, one in ((0, random_sae("relu")), (10, sae)):
        one.save(tmp_path / "encoder.8" / f"seed-{seed}")
    assert torch.equal(SAE.load_all(tmp_path, seed=10)["encoder.8"].W_enc, sae.W_enc)
    with pytest.raises(SAEError, match="no folder in it holds an SAE; pass a seed, one of 0, 10"):
        SAE.load_all(tmp_path)
    with pytest.raises(SAEError, match="no folder in it holds an SAE$"):
        SAE.load_all(tmp_path / "encoder.8" / "seed-0")
