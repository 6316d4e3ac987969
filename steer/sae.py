"""`SAE`: one class for all sparse autoencoders; the activation is data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from hooks.precision import on_meta
from steer.activations import ACTIVATIONS, Activation, dense
from steer.encoder import Encoder
from steer.errors import SAEError
from steer.feature_ids import check_features
from steer.kernels import chunks, decode, decode_dense
from steer.normalize import NORMALIZATIONS

MIN_RMS = 1e-6


@runtime_checkable
class EncodesAndDecodes(Protocol):
    """All that is asked of an SAE from elsewhere (SAELens's, for one)."""

    def encode(self, x: Tensor, /) -> Tensor: ...

    def decode(self, f: Tensor, /) -> Tensor: ...


@dataclass
class SAEInfo:
    """Where an SAE belongs and how it came to be; stored with it as the `audio` section of `cfg.json`."""

    model: str = ""
    site: str = ""
    sample_rate: int | None = None
    frame_rate: float | None = None
    data: str = ""
    license: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class SAE(nn.Module):
    """features = act((x - b_dec) W_enc + b_enc), x' = features W_dec + b_dec.

    `activation` is relu, topk, batchtopk, jumprelu, gated or another of `steer.activations`; `k` is for topk and
    batchtopk. With `rms_norm` the features are divided by their root mean square over the dictionary (arXiv 2510.23802,
    eq. 2). `center` says whether b_dec is subtracted from the input (SAELens's `apply_b_dec_to_input`). `normalize`
    (layer_norm or constant_norm_rescale) is done to each activation before all that and undone at the end: `decode`
    then needs the activations too. Without `latent_bias` b_enc is 0 and gets no gradient, without `decoder_bias` b_dec
    likewise.

    Raises:
        SAEError: an unknown activation or normalisation, or a k that is missing or out of range.
    """

    # of the activations that have them
    threshold: nn.Parameter
    r_mag: nn.Parameter
    b_mag: nn.Parameter

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        activation: str = "topk",
        k: int | None = 32,
        *,
        rms_norm: bool = False,
        center: bool = True,
        normalize: str | None = None,
        latent_bias: bool = True,
        decoder_bias: bool = True,
        info: SAEInfo | None = None,
    ) -> None:
        super().__init__()
        function = ACTIVATIONS[activation]
        if function.needs_k and not (k and 0 < k <= d_sae):
            raise SAEError(f"{activation} needs k between 1 and d_sae = {d_sae}, not {k}")
        if normalize is not None and normalize not in NORMALIZATIONS:
            raise SAEError(f"unknown normalisation {normalize!r}; there are {', '.join(NORMALIZATIONS)}")
        self.d_in, self.d_sae, self.activation, self.rms_norm, self.center = d_in, d_sae, activation, rms_norm, center
        self.normalize, self.latent_bias, self.decoder_bias = normalize, latent_bias, decoder_bias
        self.k = k if function.needs_k else None
        self.info = info or SAEInfo()
        shape = (d_sae, d_in)
        directions = torch.empty(shape) if on_meta() else nn.functional.normalize(torch.randn(shape), dim=1)
        self.W_dec = nn.Parameter(directions)
        # in memory feature by feature, as W_dec: products are faster so, and picked features lie together
        self.W_enc = nn.Parameter(directions.clone().T)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        for name in function.parameters:
            self.register_parameter(name, nn.Parameter(torch.zeros(d_sae)))
        self.requires_grad_()

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As of any module, but for the biases that this SAE is without."""
        super().requires_grad_(requires_grad)
        self.b_enc.requires_grad_(requires_grad and self.latent_bias)
        self.b_dec.requires_grad_(requires_grad and self.decoder_bias)
        return self

    def extra_repr(self) -> str:
        more = [f"k={self.k}"] if self.k else []
        more += ["rms_norm"] if self.rms_norm else []
        more += [self.normalize] if self.normalize else []
        more += [f"no {name}" for name in ("latent_bias", "decoder_bias") if not getattr(self, name)]
        return ", ".join([f"{self.d_in} -> {self.d_sae}", self.activation, *more])

    @property
    def function(self) -> Activation:
        """The activation itself."""
        return ACTIVATIONS[self.activation]

    @property
    def own(self) -> dict[str, Tensor]:
        """The activation's own parameters [d_sae] by their names."""
        return {name: getattr(self, name) for name in self.function.parameters}

    @property
    def separable(self) -> bool:
        """Whether each feature can be computed without the others."""
        return self.function.separable and not self.rms_norm

    def encoder(self, features: Tensor | None = None) -> Encoder:
        """The encoder's weights for inputs that are not centred (but normalised): b_dec is folded into the biases.

        With `features` [j] only their columns, at a cost that does not depend on d_sae.
        """
        encoder = self._weights()
        if features is not None:
            encoder = encoder.pick(features)
        if not self.center:
            return encoder
        return self.function.shifted(encoder, -(self.b_dec @ encoder.W_enc))

    def _weights(self) -> Encoder:
        """The encoder's weights as they are, for inputs that are centred."""
        return Encoder(self.W_enc, self.b_enc, self.own, self.k)

    @torch.no_grad()
    def picked(self, features: Tensor) -> Callable[[Tensor], Tensor]:
        """A function that gives some features [..., j] of activations as `normalized` gives them, before RMS norm.

        Where these can be told without the others, at a cost that does not depend on d_sae. Weights get no gradients.
        """
        if self.function.separable:
            return partial(self.function.encode, self.encoder(features))
        return self.function.among(self.encoder().detached(), features)

    def normalized(self, x_XD: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the encoder sees of activations [..., d_in], in the SAE's dtype, and the scale [..., 1] taken away."""
        x_XD = x_XD.to(self.W_enc.dtype)
        if self.normalize is None:
            return x_XD, None
        normalized = NORMALIZATIONS[self.normalize](x_XD)
        return normalized.n_XD, normalized.scale_X1

    def _centred(self, x_XD: Tensor) -> Tensor:
        # folding b_dec into the biases would read the whole encoder at each call
        n_XD = self.normalized(x_XD)[0]
        return n_XD - self.b_dec if self.center else n_XD

    def encode(self, x_XD: Tensor) -> Tensor:
        """Features [..., d_sae] of activations [..., d_in], in the SAE's own dtype."""
        if self.function.sparse:
            return dense(*self.encode_sparse(x_XD), self.d_sae)
        f_XF = self.function.encode(self._weights(), self._centred(x_XD))
        return rms_normalized(f_XF) if self.rms_norm else f_XF

    def encode_sparse(self, x_XD: Tensor) -> tuple[Tensor, Tensor]:
        """The k features [..., k] of activations [..., d_in], some perhaps 0, and their ids, in no order.

        The same features as `encode`'s, in a fraction of the time and memory.

        Raises:
            SAEError: not a top-k SAE: how many features are active is then not known beforehand.
        """
        if not self.function.sparse:
            raise SAEError(f"only a top-k SAE has a fixed number of features a vector; this one is {self.activation}")
        values_XK, indices_XK = self.function.encode_sparse(self._weights(), self._centred(x_XD))
        return rms_normalized(values_XK, self.d_sae) if self.rms_norm else values_XK, indices_XK

    def decode_sparse(self, values_XK: Tensor, indices_XK: Tensor, x_XD: Tensor | None = None) -> Tensor:
        """`decode` of features that are 0 but for some [..., k], given by their ids; for any activation.

        Raises:
            SAEError: an SAE with `normalize` is not told of which activations `x_XD` these are the features.
        """
        return self._denormalized(decode(values_XK.to(self.W_dec.dtype), indices_XK, self.W_dec, self.b_dec), x_XD)

    def decode(self, f_XF: Tensor, x_XD: Tensor | None = None) -> Tensor:
        """Activations [..., d_in] of features [..., d_sae].

        Raises:
            SAEError: an SAE with `normalize` is not told of which activations `x_XD` these are the features.
        """
        return self._denormalized(decode_dense(f_XF.to(self.W_dec.dtype), self.W_dec, self.b_dec), x_XD)

    def _denormalized(self, out_XD: Tensor, x_XD: Tensor | None) -> Tensor:
        if self.normalize is None:
            return out_XD
        if x_XD is None:
            raise SAEError(f"this SAE does {self.normalize} to each activation: pass them too, decode(features, x)")
        _, scale_X1, shift_X1 = NORMALIZATIONS[self.normalize](x_XD.to(self.W_dec.dtype))
        return out_XD * scale_X1 + shift_X1

    def forward(self, x_XD: Tensor) -> Tensor:
        """The reconstruction of activations [..., d_in]; features of all of them are never held at once."""
        if self.function.sparse:
            return self.decode_sparse(*self.encode_sparse(x_XD), x_XD)
        x_ND = x_XD.reshape(-1, self.d_in)
        parts = [self.decode(self.encode(chunk_ND), chunk_ND) for chunk_ND in chunks(x_ND, self.d_sae)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(x_XD.shape)

    def check_features(self, features: Sequence[int] | Tensor) -> Tensor:
        """Feature ids as a long tensor [j].

        Raises:
            EditError: an id that is not a whole number from 0 to d_sae - 1.
        """
        return check_features(features, self.d_sae)

    @classmethod
    def unset(cls, *args: Any, **options: Any) -> SAE:
        """An SAE whose weights are still to be set: no random numbers are drawn for them."""
        with torch.device("meta"):
            sae = cls(*args, **options)
        for name, value in list(sae.named_parameters()):
            blank = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cpu")
            sae.register_parameter(name, nn.Parameter(blank))
        return sae.requires_grad_()

    if TYPE_CHECKING:  # users' entry points, which `steer.formats` puts here: they are its functions

        @staticmethod
        def load(
            source: str | Path,
            k: int | None = None,
            device: str | torch.device = "cpu",
            dtype: torch.dtype = torch.float32,
        ) -> SAE: ...

        @staticmethod
        def load_all(
            folder: str | Path,
            seed: int | None = None,
            device: str | torch.device = "cpu",
            dtype: torch.dtype = torch.float32,
        ) -> dict[str, SAE]: ...

        @staticmethod
        def from_module(module: nn.Module, k: int | None = None) -> SAE: ...

        @staticmethod
        def from_hub(
            repo_id: str, subfolder: str | None = None, *, revision: str | None = None, token: str | None = None
        ) -> SAE: ...

        def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> Path: ...

        def push_to_hub(
            self,
            repo_id: str,
            folder_in_repo: str | None = None,
            *,
            private: bool | None = None,
            revision: str | None = None,
            token: str | None = None,
        ) -> str: ...


def rms_normalized(f_XF: Tensor, count: int | None = None) -> Tensor:
    """Divided by the root mean square over the dictionary; all-zero vectors stay zero.

    `count` is the size of the dictionary where only those features are here that are not 0.
    """
    mean_X1 = f_XF.square().sum(-1, keepdim=True) / (count or f_XF.shape[-1])
    return f_XF / mean_X1.sqrt().clamp(min=MIN_RMS)
