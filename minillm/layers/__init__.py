"""The parts of a block that families share, and what it keeps."""
