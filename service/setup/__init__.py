"""Before the first decode: a config for the rig's stream, and what is wrong with it."""
