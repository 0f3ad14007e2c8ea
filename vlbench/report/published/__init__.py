"""Published results and whether records reproduce them."""
