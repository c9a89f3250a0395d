"""XDF files, written chunk by chunk and read with pyxdf."""
