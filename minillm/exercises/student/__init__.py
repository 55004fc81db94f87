"""A student's folder of stubs, and a model that computes with what was written there."""
