"""The running loop: ingest, beat, control, and what they are made of."""
