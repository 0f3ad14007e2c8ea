"""What models cost: profiles as tables, pictures and pages."""
