"""The readiness check: sends requests to the running service, checks eleven areas and reports the evidence.

It imports nothing of the service, so that it can also check one that runs elsewhere.
`engine` runs the checks in `checks/`, `report` has their outcomes, `render` and `page` display them.
"""
