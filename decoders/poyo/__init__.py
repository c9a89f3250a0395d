"""POYO, the full-window spike transformer (arXiv 2310.16046), as torch_brain 0.2.1 computes it."""
