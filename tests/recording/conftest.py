"""Daemons that record, and what reads their recordings."""

from __future__ import annotations

from tests.system.conftest import bundle, config, daemon, other, run, serve, source, stream

__all__ = ["bundle", "config", "daemon", "other", "run", "serve", "source", "stream"]
