"""One safe file per fitted estimator: tensors by safetensors, all else as JSON in its header.

Loading reads numbers and text only; nothing in the file can run code.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["FORMAT", "read_model_file", "write_model_file"]

FORMAT = 1
_KEY = "tsvae"


def write_model_file(
    path: str | os.PathLike[str], header: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Write header and tensors to ``path``, whole or not at all.

    Parameters
    ----------
    path : str or path
    header : dict
        JSON values; must name the ``estimator``.
    tensors : dict of Tensor

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    IsADirectoryError
        If ``path`` is a folder.
    """
    from safetensors.torch import save

    text = json.dumps({"format": FORMAT, **header})
    ready = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    data = save(ready, metadata={_KEY: text})
    target = _target(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _target(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be the name of a file, got {path!r}.")
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{str(target)!r} is a folder; give the name of a file in it.")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(target.parent)!r}; make it first, for example "
            "Path(path).parent.mkdir(parents=True)."
        )
    return target


def read_model_file(
    path: str | os.PathLike[str], estimator: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what :func:`write_model_file` wrote.

    Parameters
    ----------
    path : str or path
    estimator : str
        Name of the class that asks.

    Returns
    -------
    header : dict
    tensors : dict of Tensor

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, of another program, of another estimator, or of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no model file at {os.fspath(path)!r}; give the path that save() was given."
        )
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} is damaged or no model file ({error}); write it again with "
            "save(), or copy it anew."
        ) from error
    try:
        header: dict[str, Any] = json.loads(metadata[_KEY])
        found, version = str(header["estimator"]), int(header["format"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} was not written by tsvae; load it with the library that wrote it."
        ) from error
    if version > FORMAT:
        raise ValueError(
            f"{os.fspath(path)!r} has format {version}, this version reads up to {FORMAT}; update "
            "tsvae."
        )
    if found != estimator:
        raise ValueError(
            f"{os.fspath(path)!r} holds a {found}, not a {estimator}; use {found}.load()."
        )
    return header, tensors


def pack_array(array: np.ndarray) -> Tensor:
    """Array as a tensor that the file can hold."""
    return torch.as_tensor(np.ascontiguousarray(array))
