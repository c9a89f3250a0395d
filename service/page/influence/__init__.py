"""Which units drive the decode now."""
