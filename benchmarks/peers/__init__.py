"""The loop beside others' in one run: POYO in torch, an ezmsg pipeline, a plain script."""
