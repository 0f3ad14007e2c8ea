"""What a model costs on this machine: time by stage, operations, parameters, memory and energy."""
