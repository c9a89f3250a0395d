"""The calibration wizard: from streams to a proven decoder in service, a step at a time."""
