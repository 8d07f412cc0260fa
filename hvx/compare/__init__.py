"""Runs side by side: joined by question, changed answers, agreement of maps and words, with controls."""
