"""SNLI-VE with its premise: the hypothesis is judged by a photograph and a caption of it."""
