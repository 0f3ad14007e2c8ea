"""Tables and figures, made from records only; no torch."""
