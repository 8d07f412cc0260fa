"""External models: run their own forward and find the Hadamard products in it."""
