from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from steer.errors import EditError
from steer.vectors import (
    ControlVector,
    difference_of_means,
    from_direction,
    from_pairs,
    load_vector,
    load_vectors,
    save_vectors,
)

A = ControlVector(torch.tensor([1.0, 2.0, 0.0]), "a", "1 dB", "latent", "starter:codec")
B = ControlVector(torch.tensor([0.0, 1.0, 1.0]), "b")


def test_arithmetic() -> None:
    assert (A + B).vector.tolist() == [1, 3, 1]
    assert (A - B).vector.tolist() == [1, 1, -1]
    assert (2 * A).vector.tolist() == (A * 2).vector.tolist() == [2, 4, 0]
    assert (-A).site == "latent"
    assert (2 * A).unit == ""  # a strength of 1 is no longer 1 dB


def test_difference_of_means() -> None:
    vector = difference_of_means(
        torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([[1.0, 1.0]]), "warm", site="latent"
    )
    assert vector.vector.tolist() == [1, 4]
    assert (vector.name, vector.site) == ("warm", "latent")


def test_pairs_of_different_amounts_give_the_slope() -> None:
    direction = torch.tensor([0.5, -1.0, 0.0])
    pairs = [(base := torch.randn(7, 3), base + amount * direction, amount) for amount in (-2.0, 1.0, 5.0)]
    torch.testing.assert_close(from_pairs(pairs, "louder", unit="1 dB").vector, direction)
    for none in ([], [(torch.ones(2, 3), torch.ones(2, 3), 0.0)]):
        with pytest.raises(EditError, match="pairs that differ"):
            from_pairs(none)


def test_a_direction_becomes_the_shortest_vector_that_gives_it() -> None:
    W_dec, direction = torch.randn(40, 8), torch.randn(8)
    found = from_direction(direction, W_dec, "higher", unit="1 semitone", site="latent")
    torch.testing.assert_close(found.vector @ W_dec, direction)
    assert (found.name, found.unit, found.site) == ("higher", "1 semitone", "latent")
    # any other vector that gives it has a part that the decoder does not see
    silent = torch.linalg.svd(W_dec.T).Vh[-1]
    assert abs(float(silent @ found.vector)) < 1e-4
    with pytest.raises(EditError, match="higher: the SAE's decoder reaches this direction but for"):
        from_direction(direction, W_dec[:4], "higher")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    save_vectors({"a": A, "b": B}, path)
    loaded = load_vectors(path)
    assert torch.equal(loaded["a"].vector, A.vector)
    assert (loaded["a"].name, loaded["a"].unit, loaded["a"].site) == ("a", "1 dB", "latent")
    assert load_vector(f"{path}#b").name == "b"
    for source in (path, f"{path}#c"):
        with pytest.raises(EditError, match="holds a, b"):
            load_vector(source)
    save_vectors({"only": A}, path)
    assert load_vector(path).unit == "1 dB"
    assert list(tmp_path.iterdir()) == [path]


def test_bare_tensors_of_others(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    save_file({"theirs": torch.ones(4, dtype=torch.half)}, path)
    assert load_vector(path).vector.dtype == torch.float32
    assert load_vector(path).name == "theirs"


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(EditError, match="no such file"):
        load_vectors(tmp_path / "v.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(EditError, match="not a file of control vectors"):
        load_vectors(tmp_path / "text.safetensors")
    save_file({"matrix": torch.ones(2, 2)}, tmp_path / "matrix.safetensors")
    with pytest.raises(EditError, match="one axis"):
        load_vectors(tmp_path / "matrix.safetensors")
    with pytest.raises(EditError, match="could not be written"):
        save_vectors({"a": A}, tmp_path / "missing" / "v.safetensors")


@pytest.mark.parametrize("told", ["[" * 100_000, '{"v": {"name": 3}}', '{"v": []}', "9" * 5_000])
def test_metadata_that_makes_no_sense(told: str, tmp_path: Path) -> None:
    save_file({"v": torch.ones(2)}, tmp_path / "v.safetensors", {"vectors": told})
    with pytest.raises(EditError, match="v.safetensors: not a file of control vectors"):
        load_vectors(tmp_path / "v.safetensors")


def test_vectors_are_compared_by_their_values() -> None:
    vector = ControlVector(torch.ones(3), "a", "dB")
    assert vector == ControlVector(torch.ones(3), "a", "dB") != ControlVector(torch.zeros(3), "a", "dB")
    assert vector != ControlVector(torch.ones(3), "b", "dB")
    assert len({vector, ControlVector(torch.ones(3), "a", "dB")}) == 1
