"""The language of the synthetic world: captions, questions, statements, hypotheses."""
