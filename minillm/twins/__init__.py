"""Which functions a model computes with, and with how many threads."""

from .choose import NAMES, checked_threads, n_threads, set_threads, twin

__all__ = ["NAMES", "checked_threads", "n_threads", "set_threads", "twin"]
