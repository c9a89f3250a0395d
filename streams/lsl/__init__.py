"""Lab Streaming Layer: streams that we read, streams that we publish, and their clocks."""
