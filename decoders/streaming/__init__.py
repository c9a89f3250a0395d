"""The streaming spike transformer: its network, and who the units are that it hears."""
