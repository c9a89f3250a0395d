"""From recordings to a trained decoder: lanes of bins, the optimisation, the run on disk."""
