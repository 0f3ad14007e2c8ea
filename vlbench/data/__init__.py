"""From bytes to tensors: pictures, regions, text, batches, controls."""
