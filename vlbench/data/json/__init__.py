"""JSON from elsewhere, read so that every fault names its file."""
