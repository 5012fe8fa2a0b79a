"""The codes of problems, by which programs recognize them: the same in every version of Python, unlike its phrases."""

# The codes of the platform by status, explained in docs/problems.md. The first of a status is that of `HTTPException`.
PROBLEMS: dict[int, dict[str, str]] = {
    400: {
        "bad-request": "The request is malformed.",
        "cors-refused": "The service does not allow this request to pages of this origin.",
        "invalid-host": "The request needs one valid Host header.",
        "malformed-json": "The body is not valid JSON.",
        "malformed-request": "The request is not valid HTTP.",
        "unknown-host": "The service does not serve this host.",
    },
    401: {"unauthorized": "The request has no valid credentials."},
    403: {
        "forbidden": "These credentials do not permit the request.",
        "foreign-origin": "Pages of this origin may not open a WebSocket.",
    },
    404: {"not-found": "There is no such resource."},
    405: {"method-not-allowed": "The resource does not support this method; see the header Allow."},
    406: {"not-acceptable": "The service cannot respond in a format that the request accepts."},
    408: {"request-timeout": "The request arrived too slowly."},
    409: {"conflict": "The request conflicts with what is stored."},
    410: {"gone": "The resource was removed and will not come back."},
    411: {"length-required": "The request needs the header Content-Length."},
    412: {"precondition-failed": "The resource has changed since the client read it."},
    413: {"content-too-large": "The body is too large."},
    414: {"url-too-long": "The URL is too long."},
    415: {"unsupported-media-type": "The service does not support the format of the body."},
    416: {"range-not-satisfiable": "The resource does not have the requested range."},
    421: {"misdirected-request": "This server does not serve the requested host."},
    422: {
        "unprocessable": "The request is well-formed, but cannot be processed.",
        "idempotency-key-reused": "The Idempotency-Key was already used with another request.",
        "invalid-request": "The request does not fit the schema; see the member errors.",
    },
    423: {"locked": "The resource is locked."},
    428: {"precondition-required": "The request needs the header If-Match."},
    429: {"too-many-requests": "The client sends too many requests; see the header Retry-After."},
    431: {"headers-too-large": "The headers are too large."},
    451: {"unavailable-for-legal-reasons": "The resource cannot be shown for legal reasons."},
    500: {"internal-error": "The service failed. Its log has the reason, under the request id."},
    501: {"not-implemented": "The service does not support this method."},
    502: {"bad-gateway": "Another service responded with an error."},
    503: {
        "unavailable": "A part that the request needs is down; a later retry may succeed.",
        "database-away": "The database is unavailable; a later retry may succeed.",
        "database-busy": "The database is busy; a later retry may succeed.",
        "database-full": "The database cannot store more at the moment; a later retry may succeed.",
        "database-login": "The database refuses this service at the moment; a later retry may succeed.",
        "database-read-only": "The database is read-only at the moment; a later retry may succeed.",
        "shutting-down": "This instance stops; a retry reaches another one.",
        "database-schema": "The schema of the database is not the one that this release needs.",
    },
    504: {
        "gateway-timeout": "Another service took too long.",
        "database-timeout": "The database took too long for this request.",
    },
}


def code_of(status: int) -> str:
    """The code of a status for which nothing more is known."""
    return next(iter(PROBLEMS.get(status, {"error": ""})))
