"""Bridges: small programs that take spikes off a device's own protocol and put them on LSL.

A source reads one protocol and hands out blocks in the device's time (`blocks.py`). The device's
clock is brought to LSL's (`device_clock.py`), and the blocks leave with a sequence number and a
watermark at the end of each (`bridge.py`). `docs/bridges.md` says against what each was run.
"""
