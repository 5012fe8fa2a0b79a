"""The readiness check: drives the running service through eleven areas and shows what was seen.

`engine` runs the checks of `checks/`, `report` is what they found, `render` and `page` show it.
"""
