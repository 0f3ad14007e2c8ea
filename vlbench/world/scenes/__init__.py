"""Scenes of the synthetic world, their images and the regions in them."""
