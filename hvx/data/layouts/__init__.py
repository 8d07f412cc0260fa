"""Layouts in which data sets publish their questions; ``known.py`` lists them."""
