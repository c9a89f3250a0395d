"""Training parts that all decoder families share."""
