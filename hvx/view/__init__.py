"""Explanations as pictures: maps over photographs, colored questions, the paper's figures."""
