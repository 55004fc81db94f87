"""What lies in files: checkpoints as values (checkpoint, opening), a module for each format, and
where they are found. From a name to a model: minillm.loading."""

from .. import moved
from .find import find_folder

__all__ = ["find_folder"]
__getattr__ = moved.names_of("checkpoints")
