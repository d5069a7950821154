"""Atmospheric CO2, from the data that come with statsmodels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def load_co2() -> pd.DataFrame:
    """Weekly atmospheric CO2 at Mauna Loa, 1958 to 2001, with its real gaps.

    59 of the 2,284 weeks have no measurement and are NaN, among them 18 weeks on end in 1964.

    Returns
    -------
    pandas.DataFrame of shape (2284, 1)
        Column ``"co2"`` in parts per million by volume; the index ``"time"`` holds Saturdays.

    Raises
    ------
    ImportError
        If statsmodels, which carries the data, is not installed.

    References
    ----------
    Keeling, C.D. and Whorf, T.P. (2004), Atmospheric CO2 concentrations derived from flask air
    samples at sites in the SIO network. Public domain; distributed with statsmodels.

    Examples
    --------
    >>> from tsvae.datasets import load_co2
    >>> co2 = load_co2()
    >>> co2.shape, int(co2["co2"].isna().sum())
    ((2284, 1), 59)
    """
    try:
        from statsmodels.datasets import co2
    except ImportError as error:
        raise ImportError(
            "load_co2 reads the data that come with statsmodels, which is not installed; "
            'install it with: pip install "tsvae[demo]"'
        ) from error
    frame = co2.load_pandas().data.asfreq("W-SAT")[["co2"]].astype("float64")
    frame.index.name = "time"
    return frame
