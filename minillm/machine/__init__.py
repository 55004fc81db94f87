"""The machine around a model: files, progress, limits of a hub, other processes."""
