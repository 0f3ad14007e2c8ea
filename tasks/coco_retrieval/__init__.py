"""COCO retrieval: text-to-image and image-to-text retrieval on the Karpathy splits."""
