"""The decode loop: from a pull to a published decode."""
