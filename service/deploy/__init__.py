"""Decoders in service: swap, failover, and transfer from another machine."""
