"""NWB 2.x files, read and written."""
