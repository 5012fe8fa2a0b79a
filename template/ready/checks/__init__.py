"""The checks, one module per area. Your own modules in this folder run too; name them `local_<what>.py`."""
