"""What can be wrong with a trained model. Each file looks for one kind of fault, and has a `CHECK`."""

import pkgutil


def names() -> list[str]:
    """The files, in the order of the alphabet; nothing is imported to know it."""
    return sorted(file.name for file in pkgutil.iter_modules(__path__))
