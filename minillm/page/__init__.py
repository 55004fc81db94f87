"""What is looked at: a generation as a page, the drawing of a model, a small model in the page."""
