"""Gatecrash: a benchmark harness for backdoor attacks x defenses on image classifiers.

The public names are listed once, in `__init__.pyi`. Each is imported on first use, so that `import gatecrash` costs no torch.
"""

import lazy_loader

from gatecrash.versions import VERSION

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = VERSION
