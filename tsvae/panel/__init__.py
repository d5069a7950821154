"""The one border for data: containers -> Panel(values, mask, index) -> containers."""

from __future__ import annotations

from .calendar import CalendarFeatures, calendar_features, seasonal_periods
from .index import PanelIndex, RowPositions
from .panel import Panel, feature_names, match_variables
from .read import read_panel
from .records import (
    RecordIndex,
    Records,
    match_records,
    read_records,
    write_codes,
    write_record_samples,
    write_records,
    write_scores,
    write_steps,
)
from .windows import (
    Origins,
    WindowStarts,
    count_observed,
    gather,
    rolling_origins,
    window_starts,
)
from .write import concat, write, write_rows, write_samples

__all__ = [
    "CalendarFeatures",
    "Origins",
    "Panel",
    "PanelIndex",
    "RecordIndex",
    "Records",
    "RowPositions",
    "WindowStarts",
    "calendar_features",
    "concat",
    "count_observed",
    "feature_names",
    "gather",
    "match_records",
    "match_variables",
    "read_panel",
    "read_records",
    "rolling_origins",
    "seasonal_periods",
    "window_starts",
    "write",
    "write_codes",
    "write_record_samples",
    "write_records",
    "write_rows",
    "write_samples",
    "write_scores",
    "write_steps",
]
