"""Models of other packages, and of the user's own, as what a run is made with."""
