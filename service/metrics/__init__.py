"""A daemon's numbers for Prometheus, read from the wire by a process of its own."""
