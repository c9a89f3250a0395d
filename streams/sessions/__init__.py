"""Sessions: read from many formats, recorded, converted and replayed."""
