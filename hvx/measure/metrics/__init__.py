"""What is measured of an explanation."""
