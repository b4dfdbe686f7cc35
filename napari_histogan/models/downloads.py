"""Weights that others publish: fetched once, on demand, into torch's cache, and checked by their hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from napari_histogan.errors import ConfigError


def fetch(url: str, what: str, field: str) -> Path:
    """Return the file behind a URL whose name ends in the start of its SHA-256, such as ``net-f37072fd.pth``.

    Parameters
    ----------
    url
        Where it is published.
    what
        What the weights are, for messages.
    field
        Config field in which a file can be named instead.

    Raises
    ------
    ConfigError
        If it cannot be downloaded, or the download is not the published file.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    expected = path.stem.rpartition("-")[2]
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest().startswith(expected):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), expected, progress=False)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"{what} could not be downloaded from {url}: {error}",
            "a network, or a file",
            f"fetch the file on another machine and name it in {field}",
        ) from error
    return path
