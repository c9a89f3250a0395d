"""A simulated subject that is calibrated: driving meanwhile, and only afterwards."""
