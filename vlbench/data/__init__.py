"""Load data: images, region features, text, and the splits of data sets."""
