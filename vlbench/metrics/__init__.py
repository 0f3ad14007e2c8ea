"""Pure functions of predictions and examples; no torch."""
