"""What a model costs: time by stage, operations, parameters, memory, energy; and what that is worth on this machine."""
