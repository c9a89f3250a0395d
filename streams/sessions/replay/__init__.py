"""Sessions streamed over LSL again."""
