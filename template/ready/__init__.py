"""The readiness check: drives the running service through eleven areas and shows what was seen.

It stands beside the service and imports nothing of it: what it knows, it has from answers, like any other client.
`engine` runs the checks of `checks/`, `report` is what they found, `render` and `page` show it.
"""
