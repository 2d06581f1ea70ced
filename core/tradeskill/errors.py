"""Every error this project raises on purpose.

    TradeskillError                      code, exit_code, and whether money may have moved
    ├── UsageError            exit 2     the caller typed something wrong: fix the argument
    │   ├── AmountError                  not an amount
    │   ├── ConfigError                  the configuration file: names key and file
    │   └── InputError                   a job's input does not fit the offer's schema
    ├── NotFoundError         exit 3     no such offer, job, plugin, account
    ├── StateError            exit 4     not possible in this state (lifecycle, lease, fence)
    │   ├── IllegalStepError             the lifecycle table has no such step
    │   └── StaleFenceError              somebody newer holds the job
    ├── RefusedError          exit 5     policy, capacity or the other side said no; no money moved
    │   ├── PolicyError                  a spending cap
    │   └── UntrustedError               a signature, hash or pinned key does not match
    ├── UnavailableError      exit 6     node, market or backend cannot be reached now: retry
    │   └── UnknownOutcomeError          it may have happened: ask again, never assume failure
    │       └── BrokenPluginError        for a stranger's plugin raised, hung or lied: ask again, then tell the owner
    ├── SecretError           exit 7     password, seed file or key file
    ├── NetworkMismatchError  exit 8     dev, test and live never mix
    ├── PluginError           exit 9     a plugin did not load or broke its contract
    └── StorageError          exit 10    disk full, I/O error, damaged file: stop, acknowledge nothing

Classes differ only where the caller should do something else. Codes are unique (a test says so).
"""

from __future__ import annotations

__all__ = [
    "AmountError",
    "BrokenPluginError",
    "ConfigError",
    "IllegalStepError",
    "InputError",
    "NetworkMismatchError",
    "NotFoundError",
    "PluginError",
    "PolicyError",
    "RefusedError",
    "SecretError",
    "StaleFenceError",
    "StateError",
    "StorageError",
    "TradeskillError",
    "UnavailableError",
    "UnknownOutcomeError",
    "UntrustedError",
    "UsageError",
]


class TradeskillError(Exception):
    """Base of all. `str()` is one line: the thing, the value, the way out. Never holds a secret."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.details = details


class UsageError(TradeskillError):
    code, exit_code = "usage", 2


class AmountError(UsageError):
    code = "usage.amount"


class ConfigError(UsageError):
    code = "usage.config"


class InputError(UsageError):
    code = "usage.input"


class NotFoundError(TradeskillError):
    code, exit_code = "not_found", 3


class StateError(TradeskillError):
    code, exit_code = "state", 4


class IllegalStepError(StateError):
    code = "state.illegal_step"


class StaleFenceError(StateError):
    code = "state.stale_fence"


class RefusedError(TradeskillError):
    code, exit_code = "refused", 5


class PolicyError(RefusedError):
    code = "refused.policy"


class UntrustedError(RefusedError):
    code = "refused.untrusted"


class UnavailableError(TradeskillError):
    code, exit_code = "unavailable", 6


class UnknownOutcomeError(UnavailableError):
    code = "unavailable.unknown_outcome"


class BrokenPluginError(UnknownOutcomeError):
    """`details`: `plugin`, and `kind`, which is Wallet, Market, Backend or Skill."""

    code = "unavailable.unknown_outcome.broken_plugin"


class SecretError(TradeskillError):
    code, exit_code = "secret", 7


class NetworkMismatchError(TradeskillError):
    code, exit_code = "network_mismatch", 8


class PluginError(TradeskillError):
    code, exit_code = "plugin", 9


class StorageError(TradeskillError):
    code, exit_code = "storage", 10
