"""Models of the transformers library, by `--model hf:FOLDER` or `--model hf:ID`, with their own preprocessing."""
