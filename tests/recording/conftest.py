"""Daemons that record, and what reads their recordings."""

from __future__ import annotations

from tests.faults.conftest import living
from tests.system.conftest import bundle, config, daemon, other, run, serve, source, stream

__all__ = ["bundle", "config", "daemon", "living", "other", "run", "serve", "source", "stream"]
