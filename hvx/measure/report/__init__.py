"""The report of a measurement: tables, claims, plots."""
