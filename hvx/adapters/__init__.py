"""Models of other packages, and the user's own modules, as the source of a run."""
