"""Single files of hub repositories, for models that are published as a checkpoint without a configuration."""

from __future__ import annotations

from pathlib import Path

from hooks.errors import ModelError, one_line, require


def hub_file(repository: str, file: str, name: str) -> Path:
    """A file of a hub repository, from the local cache or the network; `name` is what the user asked for.

    Raises:
        ModelError: it can be had from neither.
    """
    hub = require("huggingface_hub", "all")
    try:
        return Path(hub.hf_hub_download(repository, file))
    except Exception as error:  # the hub raises its own, httpx's and OS errors: none of them is worth a stack trace
        family = name.partition(":")[0]
        raise ModelError(
            f"{name}: {file} could not be downloaded from hub {repository} ({one_line(error)}); "
            f"fetch it where there is a network and open it as {family}:/path/{file}"
        ) from error
