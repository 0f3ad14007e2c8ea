"""Finetuning: its plan, its steps, and the checkpoints that let it go on."""
