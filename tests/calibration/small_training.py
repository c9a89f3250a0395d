"""A network and a recipe so small that a test can train it."""

SMALL = """
[network]
n_latents = 3
d_unit = 8
d_value = 8
d_model = 16
d_memory = 24
[training]
steps = 120
lanes = 8
window_s = 1.0
context_s = 0.4
learning_rate = 1e-2
dropout = 0.0
unit_dropout = 0.1
average = 0.9
"""
