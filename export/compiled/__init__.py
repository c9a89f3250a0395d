"""A bundle's graph made ready for a device: precision, static shapes, engines, what runs them."""
