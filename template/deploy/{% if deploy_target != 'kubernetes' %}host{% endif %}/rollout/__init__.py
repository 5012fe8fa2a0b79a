"""Releases on hosts, without Kubernetes: canary, blue-green and rolling restarts behind NGINX or HAProxy.

It needs nothing but Python 3.11, so that it runs on a bare host. Whatever happens, the instances that served before
serve everything afterwards, or the release can be resumed.
"""


class ReleaseError(Exception):
    """Why a release does not go on, in one line. The command adds what serves now."""


class CannotLook(ReleaseError):
    """Nothing could be done or seen: a wrong configuration, a second run, a balancer that does not respond."""


class Interrupted(ReleaseError):
    """A signal asked to stop."""
