"""The networks and their training recipe (torch)."""
