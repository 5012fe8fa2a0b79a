"""The example: a list of items. Change it, or delete the folder and its tests."""
