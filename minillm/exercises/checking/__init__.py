"""What runs an answer, in a process of its own, compares it and says what is wrong with it."""
