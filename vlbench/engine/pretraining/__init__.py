"""Pretraining a backbone on pictures and captions."""
