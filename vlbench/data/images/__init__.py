"""Load, augment and cache images, cut them into patches, and replace them for the image-blind control."""
