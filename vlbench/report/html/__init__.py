"""HTML pages: self-contained files that work offline."""
