"""The checks, a module for each area. A file of yours in this folder is picked up; name it `local_<what>.py`."""
