"""From a learner and examples to predictions and rankings, every id once."""
