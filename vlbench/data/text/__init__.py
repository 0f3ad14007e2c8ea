"""The tokenizer, answer vocabularies, answer extraction, and LXMERT's pretraining text."""
