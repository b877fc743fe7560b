"""Tasks as detached processes of this machine."""

from matterstack.runtime.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
