"""What people do with a model: text classification."""
