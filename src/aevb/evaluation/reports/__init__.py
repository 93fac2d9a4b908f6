"""Reports on a model. Each is one file of this folder, which bears its name and has a `REPORT`."""

import pkgutil


def names() -> list[str]:
    """What `aevb evaluate --report` takes; nothing is imported to know it."""
    return sorted(file.name for file in pkgutil.iter_modules(__path__))
