"""The nouns. Nothing here imports vlbench outside core, and nothing here needs torch to run."""
