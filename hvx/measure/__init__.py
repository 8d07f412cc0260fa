"""What the explanations show: localisation, agreement with the attention, words; the report."""
