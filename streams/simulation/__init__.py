"""A simulated subject: a model of motor cortex and of the user who watches the cursor."""
