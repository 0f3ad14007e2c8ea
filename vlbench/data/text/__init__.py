"""Text: the tokenizer, answer vocabularies, answer extraction."""
