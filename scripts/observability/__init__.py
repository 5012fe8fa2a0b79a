"""Generates the dashboards and SLO alerts in template/observability/."""
