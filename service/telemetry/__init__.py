"""A run's measurements: timing, unit health, flight recorder; and its recording."""
