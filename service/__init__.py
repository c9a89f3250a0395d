"""The daemon and the command line that compose the other rooms."""
