"""Region features: types, file formats, stores, and an extractor that needs no detector."""
