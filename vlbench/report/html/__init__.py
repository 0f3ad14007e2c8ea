"""Pages that open from disk: one file each, with all they need inside and no way out."""
