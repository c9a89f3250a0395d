"""Measuring the loop on this machine, in processes of their own."""
