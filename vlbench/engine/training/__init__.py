"""Fine-tuning and linear probing: the plan, the optimizer steps, and the checkpoints from which a run resumes."""
