"""What the explanations show: localization, agreement with the attention, words; the report."""
