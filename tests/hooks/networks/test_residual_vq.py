from __future__ import annotations

import pytest
import torch

from hooks.networks.residual_vq import EuclideanCodebook, ResidualVectorQuantizer


@pytest.fixture
def quantizer() -> ResidualVectorQuantizer:
    quantizer = ResidualVectorQuantizer(dimension=5, bins=12, num_quantizers=3)
    for book in quantizer.codebooks():
        book.embed.normal_()
    return quantizer


def test_encoding_is_the_nearest_vector_to_what_is_left(quantizer: ResidualVectorQuantizer) -> None:
    z_BDT = torch.randn(2, 5, 20)
    codes_KBT = quantizer.encode(z_BDT)
    left_BTD = z_BDT.transpose(1, 2).clone()
    for codes_BT, book in zip(codes_KBT, quantizer.codebooks(), strict=True):
        for batch in range(2):
            for frame in range(20):
                nearest = (book.embed - left_BTD[batch, frame]).norm(dim=1).argmin()
                assert codes_BT[batch, frame] == nearest
                left_BTD[batch, frame] -= book.embed[nearest]


def test_decoding_adds_the_vectors_of_the_codes(quantizer: ResidualVectorQuantizer) -> None:
    codes_KBT = torch.randint(12, (3, 2, 7))
    books = quantizer.codebooks()
    for used in (1, 2, 3):
        expected = sum(books[k].embed[codes_KBT[k]] for k in range(used))
        torch.testing.assert_close(quantizer.decode(codes_KBT[:used]).transpose(1, 2), expected)


def test_forward_is_encode_then_decode(quantizer: ResidualVectorQuantizer) -> None:
    z_BDT = torch.randn(2, 5, 7)
    q_BDT, codes_KBT = quantizer(z_BDT)
    assert torch.equal(codes_KBT, quantizer.encode(z_BDT))
    assert torch.equal(q_BDT, quantizer.decode(codes_KBT))


def test_more_codebooks_come_nearer() -> None:
    quantizer = ResidualVectorQuantizer(dimension=4, bins=32, num_quantizers=3)
    z_BDT = torch.randn(8, 4, 100)
    for _ in range(60):
        quantizer.update(z_BDT)
    codes_KBT = quantizer.encode(z_BDT)
    errors = [float((quantizer.decode(codes_KBT[:used]) - z_BDT).square().mean()) for used in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] < 0.5  # of a variance of 1


def test_a_codebook_moves_to_the_means_of_its_inputs() -> None:
    centers = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0]])
    x_ND = centers.repeat_interleave(50, 0) + 0.1 * torch.randn(150, 2)
    book = EuclideanCodebook(2, 8)
    for _ in range(300):
        book.update(x_ND, book.encode(x_ND))
    assert book.inited
    assert torch.isfinite(book.embed).all()
    # every input has a vector within a few of its cluster's deviations
    assert (x_ND - book.embed[book.encode(x_ND)]).norm(dim=1).max() < 0.6
