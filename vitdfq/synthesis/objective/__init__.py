"""What a loss sees, and how losses are weighted and summed."""
