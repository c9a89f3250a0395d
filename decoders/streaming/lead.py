"""The scale of leads, which the network and backends without torch share."""

from __future__ import annotations

LEAD_SCALE_S = 0.1
