"""Explanations as pictures: maps over photographs, coloured questions, the paper's figures."""
