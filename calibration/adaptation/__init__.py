"""Few-shot adaptation: a frozen network, and embeddings for the neurons of a new session."""
