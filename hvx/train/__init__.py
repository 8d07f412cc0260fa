"""Training: the backbone on what lies in each cell of a scene, and the head over frozen features."""
