"""Twins: the functions that a model computes with, given as a value, and their threads."""

from .threads import n_threads, set_threads

__all__ = ["n_threads", "set_threads"]
