"""The names that users and outside checks rely on (DESIGN, section 5): copied by hand, so a change is made twice."""

CHOICES = {
    "license": ("apache-2.0", "mit", "proprietary"),
    "cache": ("redis", "memcached", "none"),
    "cdn": ("none", "cloudflare"),
    "ci": ("github",),
    "database": ("postgresql", "none"),
    "deploy_target": ("both", "kubernetes", "host"),
    "error_monitoring": ("sentry", "none"),
    "http_instrumentation": ("contrib", "native"),
    "include_example": (True, False),
    "load_balancer": ("nginx", "haproxy"),
    "python_version": ("3.12", "3.13", "3.14"),
    "recovery_tier": ("bronze", "silver", "gold"),
    "rollout": ("canary", "blue-green"),
    "secrets_manager": ("vault", "aws", "none"),
}
DEFAULTS = {
    "project_name": "My Service",
    "project_slug": "my-service",
    "package_name": "my_service",
    "description": "A FastAPI service that is ready for production",
    "user_name": "My Service team",
    "user_email": "",
    "github_user": "your-org",
    "license": "apache-2.0",
    "cache": "redis",
    "cdn": "none",
    "ci": "github",
    "database": "postgresql",
    "deploy_target": "both",
    "error_monitoring": "sentry",
    "http_instrumentation": "contrib",
    "include_example": True,
    "load_balancer": "nginx",
    "python_version": "3.14",
    "recovery_tier": "bronze",
    "rollout": "canary",
    "secrets_manager": "vault",
}
CONTRACT = {
    "question": """
        project_name project_slug package_name description user_name user_email github_user license python_version
        database cache secrets_manager error_monitoring http_instrumentation usage_tracking auth ci load_balancer
        deploy_target rollout recovery_tier include_example cdn
    """,
    "target": """
        help setup dev test check fmt ready up image migrate revision backup restore drill load dast profile update
        upgrade
    """,
    "command": "serve migrate backup audit",
    "route": "/livez /readyz /version /docs /openapi.json /__dev__ /__probe__/error /v1/items /v1/items/{item_id}",
    "variable": """
        ENVIRONMENT HOST PORT LOG_LEVEL LOG_FORMAT DATABASE_URL DATABASE_MIGRATOR_URL DB_POOLER CACHE_URL TRUSTED_HOSTS
        FORWARDED_ALLOW_IPS CORS_ORIGINS RATE_LIMIT EXPOSE_DOCS SECRETS_BACKEND SECRETS_DIR VAULT_ADDR VAULT_AUTH_METHOD
        VAULT_ROLE VAULT_ROLE_ID VAULT_SECRET_ID_FILE VAULT_TOKEN VAULT_NAMESPACE VAULT_CACERT VAULT_KV_MOUNT
        VAULT_SECRET_PATH AWS_SECRETS_NAME AWS_ENDPOINT_URL SENTRY_DSN OTEL_EXPORTER_OTLP_ENDPOINT OTEL_METRICS_EXPORTER
        METRICS_PORT USAGE_KEY USAGE_HOST OIDC_ISSUER OIDC_AUDIENCE BACKUP_URL BACKUP_AGE_RECIPIENT
        BACKUP_AGE_IDENTITY_FILE SHUTDOWN_DRAIN_SECONDS GIT_COMMIT READY_PROBE_KEY CDN_API_URL CDN_TOKEN CDN_ZONE
    """,
}
# Variables that come with another answer than the default.
ANSWERED = {
    "AWS_ENDPOINT_URL AWS_SECRETS_NAME": {"secrets_manager": "aws"},
    "CDN_API_URL CDN_TOKEN CDN_ZONE": {"cdn": "cloudflare"},
}
# What the service exports itself, as Prometheus names it: rules, dashboards, autoscaling and analyses build on it.
METRICS = """
    cache_breaker_open cache_requests_total db_client_connection_count db_client_connection_max
    http_server_active_requests http_server_request_duration_seconds_bucket
    http_server_request_duration_seconds_count http_server_request_duration_seconds_sum log_lines_dropped_total
    process_cpu_time_seconds_total process_event_loop_lag_seconds process_memory_usage_bytes
    process_unix_file_descriptor_count target_info
"""
# The same, where something is lent: by Vault.
LEASES = "secrets_lease_duration_seconds secrets_lease_remaining_seconds"
# What its histogram counts by, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# Promised and not built: the area that builds it, the kind, the names. What gets built leaves this list.
LATER = (
    ("usage", "question", "usage_tracking"),
    ("usage", "variable", "USAGE_HOST USAGE_KEY"),
    ("hardening", "command", "audit"),
    ("hardening", "question", "auth"),
    ("hardening", "variable", "OIDC_AUDIENCE OIDC_ISSUER RATE_LIMIT"),
)
