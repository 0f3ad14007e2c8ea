"""Flickr30k retrieval: captions to photographs and back, on the Karpathy splits."""
