"""The in-repo models: one folder each, the same files in every folder; the catalogue finds them by listing."""
