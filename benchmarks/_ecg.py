"""The electrocardiogram of the benchmarks: record 100 of the MIT-BIH Arrhythmia Database."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from _common import find_file
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

Array = NDArray[np.float64]

PUBLISHED_AT = (
    "https://physionet.org/content/mitdb/1.0.0/ (record 100; as .npz with `signal` (T, 2), "
    "`leads`, `fs`, and the annotations with `sample` and `symbol`)"
)
HIGH_PASS_HZ = 0.5
WINDOW = 512
MINUTE = 60 * 360  # samples


class Halves(NamedTuple):
    """The lead without its slow drift; each half (T,) has mean square 1 over whole windows."""

    train: Array
    test: Array
    start: int  # sample of the record at which the second one starts


class Leads(NamedTuple):
    """Leads (L, T) without their slow drift, each scaled to mean square 1 in the training half."""

    train: Array
    test: Array


class Beats(NamedTuple):
    """Normal heartbeats (N, W), cut with the R wave in the middle."""

    train: Array
    test: Array


def load_halves() -> Halves:
    """Read the lead, remove what is slower than 0.5 Hz without a phase shift, cut it in two.

    The two halves are scaled apart (the second is 12 % larger), so that noise of a given power has
    the stated signal-to-noise ratio in both. Each ends with its last whole window of 512 samples:
    the last second of the record holds a jump, which the filter spreads.
    """
    lead = _fast(("MLII",))[0]
    train, test = _whole_halves(lead)
    train, test = (half / np.sqrt(np.mean(half**2)) for half in (train, test))
    return Halves(train, test, start=len(lead) // 2)


def load_leads(names: tuple[str, ...]) -> Leads:
    """Read leads as `load_halves` does, both halves in units of the training half."""
    train, test = _whole_halves(_fast(names))
    scale = np.sqrt(np.mean(train**2, axis=1, keepdims=True))
    return Leads(train / scale, test / scale)


def _fast(names: tuple[str, ...]) -> Array:
    """Read leads (L, T) and remove what is slower than 0.5 Hz."""
    with np.load(find_file("ecg", "mitbih_100.npz", PUBLISHED_AT)) as record:
        columns = [record["leads"].tolist().index(name) for name in names]
        leads = record["signal"][:, columns].T.astype(np.float64)
        rate = float(record["fs"])
    return sosfiltfilt(butter(2, HIGH_PASS_HZ, "highpass", fs=rate, output="sos"), leads)


def _whole_halves(signal: Array) -> tuple[Array, Array]:
    """Cut (..., T) in two; both parts end with their last whole window."""
    middle = signal.shape[-1] // 2
    whole = middle // WINDOW * WINDOW
    return signal[..., :whole], signal[..., middle : middle + whole]


def windows(signal: Array, length: int, stride: int) -> Array:
    """Cut (T,) into (N, length) windows that start every `stride` samples."""
    return np.lib.stride_tricks.sliding_window_view(signal, length)[::stride].copy()


def load_beats(length: int, *, alternate: bool = False) -> Beats:
    """Cut `length` samples around each beat annotated as normal.

    The first half of the record is for training and the second for testing; with `alternate`, odd
    and even minutes of both, so that the slow changes of the record are in either part.
    """
    halves = load_halves()
    with np.load(find_file("ecg", "mitbih_100_beats.npz", PUBLISHED_AT)) as annotations:
        normal = annotations["sample"][annotations["symbol"] == "N"]
    starts = normal - length // 2
    cut: list[list[Array]] = [[], []]
    for number, (half, first) in enumerate(((halves.train, 0), (halves.test, halves.start))):
        inside = starts[(starts >= first) & (starts + length <= first + len(half))]
        view = np.lib.stride_tricks.sliding_window_view(half, length)
        part = inside // MINUTE % 2 if alternate else np.full(len(inside), number)
        for which in (0, 1):
            cut[which].append(view[inside[part == which] - first])
    return Beats(*(np.concatenate(pieces) for pieces in cut))
