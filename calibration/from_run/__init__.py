"""Today's decoder from runs in which the subject drove: no calibration block."""
