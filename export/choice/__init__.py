"""Which backend runs a bundle: what each must pass, and the fastest of those that do."""
