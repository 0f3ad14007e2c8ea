"""Scenes of the synthetic world, their images and region features."""
