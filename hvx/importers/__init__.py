"""Foreign checkpoints, a file for each format, into native ones."""
