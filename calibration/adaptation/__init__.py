"""Few-shot adaptation: a frozen network, and embeddings for a new session's neurons."""
