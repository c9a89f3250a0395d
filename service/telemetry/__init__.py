"""A run's measurements: timing, unit health, flight recorder, token log."""
