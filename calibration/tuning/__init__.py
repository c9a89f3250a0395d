"""The search for a decoder's size that is accurate, and fast enough for a latency budget."""
