"""The shape of ``drills``: which backups are restored into scratch servers, how they are checked, against what."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from drd.config_timing import TimedSection
from drd.config_values import Count, Duration, FilePath, Section, Size, Text, its_defaults, refuse, size_between
from drd.drills.suite import Budgets, Drill, Limits, Objectives, Selection, Suite
from drd.model import EngineKind

MIB, GIB = 1 << 20, 1 << 30
RuntimeName: TypeAlias = Literal["auto", "process", "docker", "kubernetes"]


class ObjectivesConfig(Section):
    """What a recovery must achieve."""

    rto: Duration | None = Field(default=None, description="How long it may take, from choosing to the last check.")
    rpo: Duration | None = Field(default=None, description="How old the newest recovered data may be.")
    strict: bool = Field(default=False, description="A drill that is over an objective fails, not only says so.")


class BudgetsConfig(Section):
    """What one run of a drill may use; over it, the drill is unverified."""

    time: Duration = Field(default=timedelta(hours=1), description="From start to verdict.")
    bytes: Size | None = Field(default=None, description="Most bytes to fetch from the store. Default: no limit.")
    disk: Annotated[Size, size_between(64 * MIB, 1 << 50)] = Field(
        default=100 * GIB, description="Most disk a scratch server may use."
    )


class LimitsConfig(Section):
    """What bounds a scratch server."""

    memory: Annotated[Size, size_between(128 * MIB, 1 << 44)] = Field(default=2 * GIB, description="Most memory.")
    cpus: Annotated[float, Field(gt=0, le=1024)] = Field(default=2.0, description="Most processors.")
    pids: Annotated[Count, Field(ge=16, le=1_000_000)] = Field(default=1024, description="Most processes and threads.")
    images: dict[EngineKind, Text] = Field(
        default_factory=dict,
        description="Image, or folder of programs, instead of the runtime's choice: {postgres: …, redis: …}.",
    )


class DockerConfig(Section):
    """Scratch servers in containers of a Docker Engine on this machine."""

    host: Text | None = Field(
        default=None, description="Address of the engine, such as unix:///run/docker.sock. Default: as docker finds it."
    )
    images: dict[EngineKind, Text] = Field(
        default_factory=dict,
        description="Image by kind of database. Default: the official one of that release.",
    )
    pull: bool = Field(default=True, description="Whether an image that is not there may be pulled.")


class KubernetesConfig(Section):
    """Scratch servers in pods of a Kubernetes cluster."""

    namespace: Text | None = Field(default=None, description="Namespace of the pods. Default: drd's own.")
    kubeconfig: FilePath | None = Field(
        default=None, description="How to reach the cluster. Default: drd's own pod, else as kubectl finds it."
    )
    context: Text | None = Field(default=None, description="Context of the kubeconfig. Default: the current one.")
    images: dict[EngineKind, Text] = Field(
        default_factory=dict, description="Image by kind of database. Default: the official one of that release."
    )
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        default="IfNotPresent", description="When a node pulls an image."
    )
    pull_secrets: tuple[Text, ...] = Field(default=(), description="Secrets by which the node pulls images.")
    users: dict[EngineKind, Annotated[Count, Field(ge=1, le=4_294_967_294)]] = Field(
        default_factory=dict,
        description="User id by kind of database. Default: the official images' (999, 999, 101).",
    )
    node_selector: dict[str, Text] = Field(default_factory=dict, description="Labels of the nodes that may run them.")
    tolerations: tuple[dict[str, Any], ...] = Field(
        default=(), description="Taints of nodes that they bear, as in a Pod."
    )
    priority_class: Text | None = Field(default=None, description="Priority class; a low one lets real work go first.")
    reach: Literal["auto", "pod", "forward"] = Field(
        default="auto",
        description="How drd reaches a pod: by its address, or by a port forwarded through the API server; auto: by "
        "address from within the cluster.",
    )
    own_address: Text | None = Field(
        default=None, description="Address where pods find drd. Default: of drd's own pod, inside a cluster."
    )


class ScratchConfig(Section):
    """Where scratch servers live: folder, programs and user of plain processes; engine and images of containers."""

    dir: FilePath | None = Field(
        default=None, description="Folder for their data. Default: drd-scratch in the system's temporary folder."
    )
    programs: dict[EngineKind, FilePath] = Field(
        default_factory=dict,
        description="Folder of an engine's server programs. Default: the PATH, and where packages put them.",
    )
    user: Text | None = Field(
        default=None, description="Unprivileged user they run as, where drd is root. Default: the engine's own user."
    )
    docker: DockerConfig = Field(default_factory=its_defaults, description="Scratch servers in containers.")
    kubernetes: KubernetesConfig = Field(default_factory=its_defaults, description="Scratch servers in pods.")


class DrillConfig(TimedSection):
    """One drill: restores backups into throw-away servers, reads everything back, and keeps a report."""

    suite: FilePath | None = Field(
        default=None, description="File of checks besides those every drill makes. Relative: to this file's folder."
    )
    sources: tuple[Text, ...] = Field(default=(), description="Sources whose backups are drilled. Default: all.")
    runtime: RuntimeName = Field(
        default="auto",
        description="Where scratch servers come from: docker, process, kubernetes, or auto (pods where drd is in one, "
        "else docker where an engine answers, else processes).",
    )
    select: Annotated[tuple[Selection, ...], Field(min_length=1)] = Field(
        default=("latest",),
        description="Which backups of each source: latest, random (one not proven yet), oldest, longest-chain.",
    )
    objectives: ObjectivesConfig = Field(default_factory=its_defaults, description="What must be achieved.")
    budgets: BudgetsConfig = Field(default_factory=its_defaults, description="What a run may use.")
    limits: LimitsConfig = Field(default_factory=its_defaults, description="Bounds of a scratch server.")

    @model_validator(mode="after")
    def _timing_fits_together(self) -> DrillConfig:
        refuse(self._timing_problems())
        return self

    def drill(self, name: str, sources: tuple[str, ...], suite: Suite) -> Drill:
        """Return the drill as operations take it."""
        rto, rpo = self.objectives.rto, self.objectives.rpo
        return Drill(
            name=name,
            sources=self.sources or sources,
            select=self.select,
            suite=suite,
            objectives=Objectives(
                None if rto is None else rto.total_seconds(),
                None if rpo is None else rpo.total_seconds(),
                self.objectives.strict,
            ),
            budgets=Budgets(self.budgets.time.total_seconds(), self.budgets.bytes, self.budgets.disk),
            limits=Limits(self.limits.memory, self.limits.cpus, self.limits.pids, dict(self.limits.images)),
        )
