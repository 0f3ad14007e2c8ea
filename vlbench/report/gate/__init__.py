"""The regression gate: what a baseline holds, and whether runs are as good."""
