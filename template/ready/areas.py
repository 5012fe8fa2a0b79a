"""The names that a report uses: of the areas, of what is not checked yet, and of findings about the run itself."""

# The areas of a service in production, in the order in which they are shown.
AREAS = {
    "observability": "Observability",
    "errors": "Error monitoring",
    "backups": "Database backups",
    "usage": "Usage tracking",
    "secrets": "Secrets",
    "caching": "Performance and caching",
    "security": "Security",
    "delivery": "CI/CD",
    "releases": "Blue-green and canary releases",
    "scaling": "Scaling and load balancing",
    "recovery": "Disaster recovery",
}
# What this version of the template does not check yet; a check of that name or area, also one of yours, replaces it.
NOT_BUILT = {
    "usage": "A usage event arrives where usage is analysed.",
}
RUN = "run"  # the findings about the run itself
PROFILE = f"{RUN}.profile"
