"""`steer convert`: an SAE of one package as files of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apps.messages import log
from apps.options import Force, Json, output


def convert(
    source: Annotated[str, typer.Argument(help="Folder, file, hf:owner/name/folder@revision or starter:codec/latent.")],
    out: Annotated[Path, output("Folder to write.")],
    to: Annotated[
        str, typer.Option(help="The package that shall open it: saelens, dictionary_learning, sparsify or openai.")
    ] = "saelens",
    k: Annotated[int | None, typer.Option(help="Features of each frame, for a file that does not say.")] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Write an SAE of SAELens, dictionary_learning (AudioSAE), sparsify, OpenAI, FREUD or whisper-sae for another one.

    Features stay the same. What the other package cannot hold is refused: sparsify has top-k SAEs only, and OpenAI's
    loader does a layer norm to the inputs of every top-k SAE and to no other. SteeredModel, recipes and --sae open all
    of these formats as they are.
    """
    import warnings

    from apps.files import to_json
    from steer.errors import SAEError
    from steer.formats import load_sae, write_sae

    if out.exists() and not out.is_dir():
        raise SAEError(f"{out}: is a file; an SAE is written as a folder")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise SAEError(f"{out}: is not empty; use --force to write there over files of the same names")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        sae = load_sae(source, k)
    for notice in told:
        log.warning(f"steer: {notice.message}")
    write_sae(sae, out, to)
    if as_json:
        files = sorted(path.name for path in out.iterdir())
        about = {"activation": sae.activation, "k": sae.k, "d_in": sae.d_in, "d_sae": sae.d_sae, "site": sae.info.site}
        print(to_json({"source": source, "folder": str(out), "to": to, "files": files, **about}))
    else:
        print(f"{out}: {sae.extra_repr()}, for {to}")
