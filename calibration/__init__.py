"""From a subject to a decoder: evaluation, adaptation, verification."""
