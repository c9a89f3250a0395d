"""`spikeloop demo`: the loop closed with a simulated subject, on a screen or as JSON."""
