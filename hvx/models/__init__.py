"""Networks whose joint is a Hadamard product, the CNN under them, and their checkpoints."""
