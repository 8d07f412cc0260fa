"""Training: the backbone on the content of grid cells, and the head on frozen features."""
