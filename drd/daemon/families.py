"""The names of drd's metrics, with what they mean; everything else that speaks of them is checked against this.

Rules, dashboards and :file:`docs/metrics.md` rely on the names: one that is here is not changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Family:
    """A metric. ``daemon`` ones exist only where a daemon runs, not after a single verb."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    daemon: bool = False


def _source(name: str, text: str) -> Family:
    return Family(name, "gauge", text, ("source",))


def _drill(name: str, text: str, *more: str) -> Family:
    return Family(name, "gauge", text, ("drill", "source", *more))


def _daemon(name: str, text: str, *labels: str, kind: Literal["gauge", "counter", "histogram"] = "gauge") -> Family:
    return Family(name, kind, text, labels, daemon=True)


FAMILIES: tuple[Family, ...] = (
    Family("drd_build_info", "gauge", "Always 1; the label names the version of drd.", ("version",)),
    Family("drd_source_info", "gauge", "Always 1; the label names the kind of database.", ("source", "engine")),
    _source("drd_source_configured", "1 for a source of the configuration, 0 for one that only the store knows."),
    Family("drd_sources_omitted", "gauge", "Sources beyond the first 1000, of which there are no metrics."),
    _source("drd_backup_last_success_timestamp_seconds", "When the newest usable backup was finished."),
    _source("drd_backup_last_attempt_timestamp_seconds", "When the last attempt of a backup began."),
    _source("drd_backup_last_attempt_success", "Whether the last attempt that ran to an end made a backup."),
    _source("drd_backup_duration_seconds", "How long the newest backup took."),
    _source("drd_backup_plain_bytes", "Size of the newest backup as the database gave it."),
    _source("drd_backup_stored_bytes", "What the newest backup added to the store."),
    _source("drd_backup_rows", "Rows or keys in the newest backup, where the engine knows them."),
    _source("drd_backup_odd", "Whether the newest backup holds oddly less than the one before it."),
    _source("drd_backups", "Usable backups in the store."),
    _source("drd_backups_damaged", "Backups in the store that cannot be restored, by manifest or ancestor."),
    _source("drd_backups_untrusted", "Backups in the store that nobody who is trusted has signed."),
    _source("drd_source_stored_bytes", "What all usable backups together have in the store."),
    _source("drd_recovery_point_timestamp_seconds", "The newest state that can be restored."),
    _source("drd_recovery_point_age_seconds", "How much of the past would be lost if the source were lost now."),
    _source("drd_recovery_window_start_timestamp_seconds", "The oldest state that can be restored."),
    _source("drd_recovery_point_objective_seconds", "How old the recovery point may be, where the source says so."),
    Family(
        "drd_backup_expected_interval_seconds",
        "gauge",
        "The longest time between two planned backups, of a source that is in a schedule.",
        ("source",),
        daemon=True,
    ),
    _drill("drd_drill_last_run_timestamp_seconds", "When the last drill of the source ended."),
    _drill("drd_drill_last_passed_timestamp_seconds", "When the last drill of the source that passed ended."),
    _drill("drd_drill_verdict", "1 for the verdict of the last drill, 0 for the others.", "verdict"),
    _drill("drd_drill_rto_seconds", "How long the last drill took from the choice of a backup to the last check."),
    _drill("drd_drill_rpo_seconds", "How old the newest recovered data was when the last drill began."),
    _drill("drd_drill_rto_objective_seconds", "How long recovery may take, where the drill says so."),
    _drill("drd_drill_rpo_objective_seconds", "How old the recovered data may be, where the drill says so."),
    _drill("drd_drill_over_objective", "Whether the last drill missed an objective."),
    _drill("drd_drill_phase_seconds", "How long each phase of the last drill took.", "phase"),
    _daemon("drd_drill_expected_interval_seconds", "The longest time between two planned runs of the drill.", "drill"),
    _source("drd_prune_kept_backups", "Backups that the last prune kept."),
    Family("drd_prune_removed_backups_total", "counter", "Backups that prune removed.", ("source",)),
    _source("drd_prune_blocked_backups", "Backups that the last prune wanted to remove and could not."),
    _source("drd_prune_last_success_timestamp_seconds", "When the last prune that went well ended."),
    _source("drd_verify_last_success_timestamp_seconds", "When the last verification that found nothing wrong ended."),
    _source("drd_verify_problems", "Stored objects that were damaged when they were last read back."),
    _daemon("drd_verify_expected_interval_seconds", "The longest time between two planned verifications.", "source"),
    _daemon(
        "drd_job_runs_total", "Runs of jobs that ended, since the daemon started.", "kind", "outcome", kind="counter"
    ),
    _daemon("drd_job_duration_seconds", "How long runs of jobs took.", "kind", kind="histogram"),
    _daemon("drd_job_next_run_timestamp_seconds", "When the job runs next, retries included.", "job"),
    _daemon("drd_job_running", "Whether the job runs now.", "job"),
    _daemon("drd_job_consecutive_failures", "How often the job has failed since it last succeeded.", "job"),
    _daemon("drd_scheduler_paused", "Whether a person has stopped the planning of new runs."),
    _daemon("drd_leader", "Whether this replica plans the jobs."),
    _daemon("drd_history_errors", "Whether the history of jobs cannot be kept in the store."),
    Family(
        "drd_store_operations_total",
        "counter",
        "Calls to the store, each try; outcome ok, error, or refused for a right that is lacking.",
        ("operation", "outcome"),
    ),
    Family("drd_store_operation_duration_seconds", "histogram", "How long calls to the store took.", ("operation",)),
    Family(
        "drd_store_retries_total", "counter", "Calls to the store that failed and were tried again.", ("operation",)
    ),
    Family("drd_store_bytes_total", "counter", "Bytes that were put into the store or got from it.", ("direction",)),
    Family(
        "drd_store_clock_skew_seconds",
        "gauge",
        "How far the clock here is ahead of the store's, at least; negative: behind; 0: within a second.",
    ),
    _daemon("drd_lease_held", "Whether this daemon, or a job of it that is at work, holds the lease.", "lease"),
    _daemon("drd_lease_lost_total", "How often the daemon's lease was taken over by another replica.", kind="counter"),
    _daemon("drd_config_last_reload_successful", "Whether the newest configuration is the one in force."),
    _daemon("drd_config_last_reload_success_timestamp_seconds", "Since when the configuration in force is."),
    _daemon("drd_config_reloads_total", "Attempts to take a new configuration.", "outcome", kind="counter"),
    _daemon("drd_notifications_total", "Receivers told of events, or not reached.", "outcome", kind="counter"),
    _daemon("drd_heartbeat_timestamp_seconds", "When the store last answered the daemon."),
    Family("drd_overview_timestamp_seconds", "gauge", "When what these metrics tell was last read from the store."),
)
BY_NAME = {family.name: family for family in FAMILIES}
