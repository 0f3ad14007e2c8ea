"""VQA v2.0: open questions about photographs, ten answers each."""
