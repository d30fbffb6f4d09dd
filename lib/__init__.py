"""The shared core of Conductor Loop; imports the standard library only.

Modules stand in layers and import downwards only; tests/unit/test_layers.py
holds the order.
"""

VERSION = "0.1.0"
