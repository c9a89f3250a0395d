"""Everything that enters and leaves: clock, LSL, spikes to tokens, sessions on disk, the wire."""
