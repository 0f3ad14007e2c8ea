"""How an output kind questions a backbone: one module per kind."""
