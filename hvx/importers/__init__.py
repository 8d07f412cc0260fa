"""Importers of external checkpoints, a file for each format."""
