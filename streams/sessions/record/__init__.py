"""LSL streams recorded into an XDF file."""
