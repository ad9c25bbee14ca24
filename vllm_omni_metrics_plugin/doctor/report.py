"""What an examination finds: the state of each part, and what is wrong with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: A note changes nothing; degraded: some samples are missing or wrong; broken: there are none.
Severity = Literal["note", "degraded", "broken"]
Status = Literal["good", "degraded", "broken"]
Availability = Literal["yes", "in part", "not yet", "no"]

_EXIT_CODES: dict[Status, int] = {"good": 0, "degraded": 1, "broken": 2}


@dataclass(frozen=True)
class Finding:
    """Something that a user should know; ``check`` is the part that it is about."""

    severity: Severity
    check: str
    message: str


@dataclass(frozen=True)
class PatchState:
    """What became of one patch; ``not reported`` is one of a process that was not asked."""

    name: str
    target: str
    status: str
    reason: str
    #: Modules of others whose functions wrap the same method.
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class FamilyState:
    name: str
    available: Availability
    reason: str


@dataclass(frozen=True)
class HookPlugin:
    """One hook plugin; ``status`` is loaded, failed, blocked or not asked for."""

    name: str
    #: ``module:object`` of an entry point, the path of a file.
    value: str
    status: str
    reason: str
    #: That it implements, in whatever process.
    hooks: tuple[str, ...]
    #: Of the package that installed it; None of a file.
    distribution: str | None = None
    version: str | None = None
    #: In which one of its implementations is called.
    processes: tuple[str, ...] = ()
    #: Those of ``hooks`` that are called on a thread of the plugin's own.
    slow: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """The distribution with its version, or the path of the file."""
        return f"{self.distribution} {self.version}" if self.distribution else self.value


@dataclass
class Report:
    """Everything that was examined; parts that could not be are empty."""

    plugin_version: str
    #: Whether ``VLLM_OMNI_METRICS`` switches the plugin on in this environment.
    enabled: bool
    #: Whether ``VLLM_PLUGINS`` lets the engine load it.
    allowed: bool
    #: Versions of vllm-omni and vllm, as far as they are installed.
    engine: dict[str, str] = field(default_factory=dict)
    #: How much of this release of vllm-omni the plugin's own tests run; None if nothing of it.
    tested: str | None = None
    #: The server that was read, if any.
    url: str | None = None
    #: The Prometheus whose memory of servers was read, if any.
    prometheus: str | None = None
    channel: str = ""
    patches: list[PatchState] = field(default_factory=list)
    families: list[FamilyState] = field(default_factory=list)
    hooks: list[HookPlugin] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def status(self) -> Status:
        severities = {finding.severity for finding in self.findings}
        if "broken" in severities:
            return "broken"
        return "degraded" if "degraded" in severities else "good"

    @property
    def exit_code(self) -> int:
        return _EXIT_CODES[self.status]

    def as_data(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {"status": self.status, "exit_code": self.exit_code, **asdict(self)}
