"""Pretraining: from images and texts to weights, with a card that says how they were made."""
