"""Region features: what they are, where they are kept, and how they are made without a detector."""
