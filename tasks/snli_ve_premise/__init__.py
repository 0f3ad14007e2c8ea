"""SNLI-VE with its premise: the label depends on a photograph and a caption of it."""
