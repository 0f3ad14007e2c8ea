"""Images: decoding, augmentation, patches, and the cache of decoded images."""
