"""The daemon: composition, commands, start and end."""
