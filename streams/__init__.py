"""What enters and leaves: messages, clock, ring, tokenizer, LSL, sessions on disk, wire."""
