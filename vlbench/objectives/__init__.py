"""Pretraining losses as pure functions of tensors."""
