"""The steps of a spike from pull to token as machine code, where numba is at hand."""
