"""Labels and arrays as JSON-ready dictionaries, so that a saved index needs no pickle.

Only a fixed set of types is written and read: loading never runs code from the file.
"""

from __future__ import annotations

import base64
import datetime
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from .fields import zone_name

_PLAIN_KINDS = "biuf"


def encode_array(values: np.ndarray) -> dict[str, Any]:
    """Encode an array of numbers, datetimes or scalars that JSON can carry.

    Examples
    --------
    >>> decode_array(encode_array(np.arange(3)))
    array([0, 1, 2])
    """
    values = np.asarray(values)
    if values.dtype.kind in _PLAIN_KINDS + "mM":
        stored = values.astype(values.dtype.newbyteorder("<"), copy=False)
        if values.dtype.kind in "mM":
            stored = stored.view("<i8")
        raw = zlib.compress(np.ascontiguousarray(stored).tobytes(), 1)
        return {
            "dtype": values.dtype.newbyteorder("<").str,
            "shape": list(values.shape),
            "data": base64.b64encode(raw).decode("ascii"),
        }
    return {
        "dtype": "object" if values.dtype.kind == "O" else values.dtype.str,
        "shape": list(values.shape),
        "items": [encode_scalar(value) for value in values.ravel().tolist()],
    }


def decode_array(data: Mapping[str, Any]) -> np.ndarray:
    """Invert :func:`encode_array`."""
    shape = tuple(data["shape"])
    dtype = np.dtype(data["dtype"])
    if "items" in data:
        values = np.empty(len(data["items"]), dtype=dtype)
        for position, item in enumerate(data["items"]):
            values[position] = decode_scalar(item)
        return values.reshape(shape)
    raw = zlib.decompress(base64.b64decode(data["data"]))
    stored = np.dtype("<i8") if dtype.kind in "mM" else dtype
    values = np.frombuffer(raw, dtype=stored).copy()
    return values.view(dtype).reshape(shape)


def encode_scalar(value: Any) -> Any:
    """Encode one label or attribute; plain JSON values stay as they are."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return {"type": "float", "value": value.hex()}
    for kind, accepts, encode, _ in _SCALARS:
        if accepts(value):
            return {"type": kind, "value": encode(value)}
    raise TypeError(
        f"A label or attribute of type {type(value).__name__} ({value!r}) cannot be written to "
        "JSON; use strings, numbers, dates or tuples of these, or pickle the estimator."
    )


def decode_scalar(value: Any) -> Any:
    """Invert :func:`encode_scalar`."""
    if not isinstance(value, Mapping):
        return value
    if value["type"] == "float":
        return float.fromhex(value["value"])
    for kind, _, _, decode in _SCALARS:
        if kind == value["type"]:
            return decode(value["value"])
    raise ValueError(f"Unknown label type {value['type']!r} in a saved index.")


def _is_cftime(value: Any) -> bool:
    return type(value).__module__.startswith("cftime")


def _decode_cftime(data: list[Any]) -> Any:
    import cftime

    return cftime.datetime(*data[:7], calendar=data[7], has_year_zero=data[8])


def _encode_cftime(value: Any) -> list[Any]:
    fields = ["year", "month", "day", "hour", "minute", "second", "microsecond"]
    return [getattr(value, f) for f in fields] + [value.calendar, value.has_year_zero]


def _encode_timestamp(value: pd.Timestamp) -> list[Any]:
    zone = None if value.tz is None else zone_name(value.tz)
    return [int(value.asm8.astype("int64")), value.unit, zone]


def _decode_timestamp(data: list[Any]) -> pd.Timestamp:
    stamp = pd.Timestamp(np.datetime64(data[0], data[1]))
    return stamp if data[2] is None else stamp.tz_localize("UTC").tz_convert(data[2])


def _encode_items(value: Any) -> list[Any]:
    return [encode_scalar(item) for item in value]


def _decode_items(data: list[Any]) -> list[Any]:
    return [decode_scalar(item) for item in data]


_Codec = tuple[str, Callable[[Any], bool], Callable[[Any], Any], Callable[[Any], Any]]
_SCALARS: list[_Codec] = [
    ("tuple", lambda v: isinstance(v, tuple), _encode_items, lambda d: tuple(_decode_items(d))),
    ("list", lambda v: isinstance(v, list), _encode_items, _decode_items),
    (
        "dict",
        lambda v: isinstance(v, Mapping),
        lambda v: [[encode_scalar(k), encode_scalar(x)] for k, x in v.items()],
        lambda d: {decode_scalar(k): decode_scalar(x) for k, x in d},
    ),
    ("NaT", lambda v: v is pd.NaT, lambda v: None, lambda d: pd.NaT),
    ("NA", lambda v: v is pd.NA, lambda v: None, lambda d: pd.NA),
    ("Timestamp", lambda v: isinstance(v, pd.Timestamp), _encode_timestamp, _decode_timestamp),
    (
        "Timedelta",
        lambda v: isinstance(v, pd.Timedelta),
        lambda v: [int(v.asm8.astype("int64")), v.unit],
        lambda d: pd.Timedelta(np.timedelta64(d[0], d[1])),
    ),
    (
        "Period",
        lambda v: isinstance(v, pd.Period),
        lambda v: [int(v.ordinal), v.freqstr],
        lambda d: pd.Period(ordinal=d[0], freq=d[1]),
    ),
    ("cftime", _is_cftime, _encode_cftime, _decode_cftime),
    (
        "datetime",
        lambda v: isinstance(v, datetime.datetime) and v.tzinfo is None,
        lambda v: v.isoformat(),
        datetime.datetime.fromisoformat,
    ),
    (
        "date",
        lambda v: isinstance(v, datetime.date) and not isinstance(v, datetime.datetime),
        lambda v: v.isoformat(),
        datetime.date.fromisoformat,
    ),
    (
        "Interval",
        lambda v: isinstance(v, pd.Interval),
        lambda v: [encode_scalar(v.left), encode_scalar(v.right), v.closed],
        lambda d: pd.Interval(decode_scalar(d[0]), decode_scalar(d[1]), d[2]),
    ),
    (
        "scalar",
        lambda v: isinstance(v, np.generic),
        lambda v: encode_array(np.asarray(v)),
        lambda d: decode_array(d)[()],
    ),
    ("array", lambda v: isinstance(v, np.ndarray), encode_array, decode_array),
]


def encode_index(index: pd.Index | None) -> dict[str, Any] | None:
    """Encode a pandas index with its type, names, frequency and time zone.

    Examples
    --------
    >>> index = pd.date_range("2024-01-01", periods=2, freq="D", name="day")
    >>> decode_index(encode_index(index)).equals(index)
    True
    """
    if index is None:
        return None
    data: dict[str, Any] = {"name": encode_scalar(index.name)}
    if isinstance(index, pd.MultiIndex):
        data = {"kind": "multi", "names": _encode_items(index.names)}
        data["levels"] = [encode_index(level) for level in index.levels]
        data["codes"] = [encode_array(np.asarray(codes)) for codes in index.codes]
        return data
    if isinstance(index, pd.RangeIndex):
        return data | {"kind": "range", "range": [index.start, index.stop, index.step]}
    if isinstance(index, pd.DatetimeIndex):
        data |= {"kind": "datetime", "tz": None if index.tz is None else zone_name(index.tz)}
        data["freq"] = None if index.freq is None else index.freqstr
        return data | {"values": encode_array(index.asi8), "unit": index.unit}
    if isinstance(index, pd.TimedeltaIndex):
        data |= {"kind": "timedelta", "freq": None if index.freq is None else index.freqstr}
        return data | {"values": encode_array(index.asi8), "unit": index.unit}
    if isinstance(index, pd.PeriodIndex):
        return data | {"kind": "period", "freq": index.freqstr, "values": encode_array(index.asi8)}
    if isinstance(index, pd.CategoricalIndex):
        data |= {"kind": "categorical", "ordered": bool(index.ordered)}
        data["codes"] = encode_array(np.asarray(index.codes))
        return data | {"categories": encode_index(index.categories)}
    if type(index).__name__ == "CFTimeIndex":
        return data | {"kind": "cftime", "values": encode_array(np.asarray(index))}
    if index.dtype.kind in _PLAIN_KINDS and isinstance(index.dtype, np.dtype):
        return data | {"kind": "plain", "values": encode_array(index.to_numpy())}
    values = encode_array(index.to_numpy(dtype=object))
    return data | {"kind": "labels", "dtype": str(index.dtype), "values": values}


def decode_index(data: Mapping[str, Any] | None) -> pd.Index | None:
    """Invert :func:`encode_index`."""
    if data is None:
        return None
    kind = data["kind"]
    if kind == "multi":
        levels = [decode_index(level) for level in data["levels"]]
        codes = [decode_array(item) for item in data["codes"]]
        return pd.MultiIndex(levels, codes, names=_decode_items(data["names"]))
    name = decode_scalar(data["name"])
    if kind == "range":
        return pd.RangeIndex(*data["range"], name=name)
    if kind == "datetime":
        stamps = pd.DatetimeIndex(decode_array(data["values"]).view(f"M8[{data['unit']}]"))
        if data["tz"] is not None:
            stamps = stamps.tz_localize("UTC").tz_convert(data["tz"])
        return pd.DatetimeIndex(stamps, freq=data["freq"], name=name)
    if kind == "timedelta":
        deltas = decode_array(data["values"]).view(f"m8[{data['unit']}]")
        return pd.TimedeltaIndex(deltas, freq=data["freq"], name=name)
    if kind == "period":
        ordinals = decode_array(data["values"])
        return pd.PeriodIndex.from_ordinals(ordinals, freq=data["freq"], name=name)
    if kind == "categorical":
        values = pd.Categorical.from_codes(
            decode_array(data["codes"]), decode_index(data["categories"]), ordered=data["ordered"]
        )
        return pd.CategoricalIndex(values, name=name)
    if kind == "cftime":
        return cftime_index(decode_array(data["values"]), name)
    if kind == "plain":
        return pd.Index(decode_array(data["values"]), name=name)
    if kind == "labels":
        return pd.Index(decode_array(data["values"]), dtype=data["dtype"], name=name)
    raise ValueError(f"Unknown index kind {kind!r} in a saved index.")


def cftime_index(values: np.ndarray, name: Any = None) -> pd.Index:
    """Return an xarray ``CFTimeIndex`` of cftime dates (an object index when empty)."""
    if len(values) == 0:
        return pd.Index(values, dtype=object, name=name)
    from xarray import CFTimeIndex

    return CFTimeIndex(values, name=name)
