"""The recording of a run: what it received, did and said, written by a process of its own."""
