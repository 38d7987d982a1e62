"""``drd plan --kubernetes``: the schedules as CronJobs, one for each source, for the cluster to spread."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from drd.cli import documents
from drd.cli.session import Session
from drd.errors import ConfigError

if TYPE_CHECKING:  # --help needs none of it
    from drd.config import Config

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_PREFIX = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "plan",
        help="print the schedules as CronJobs of Kubernetes",
        parents=[common],
        description="Print a CronJob for each schedule and source, and for each drill, as YAML for kubectl apply. "
        "Within a schedule's jitter they are spread, each by its own, always equal share.",
    )
    parser.add_argument("--kubernetes", action="store_true", required=True, help="as manifests of Kubernetes")
    parser.add_argument("--image", required=True, metavar="IMAGE", help="image of drd")
    parser.add_argument("--namespace", default="default", metavar="NAME", help="namespace (default)")
    parser.add_argument("--prefix", default="drd", metavar="NAME", help="what the CronJobs' names begin with (drd)")
    parser.add_argument(
        "--config-map", default="drd", metavar="NAME", help="ConfigMap with this configuration as drd.yaml (drd)"
    )
    parser.add_argument("--secret", default="", metavar="NAME", help="Secret whose keys become environment variables")
    parser.add_argument(
        "--secret-files",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="Secret that is mounted as files; may be repeated",
    )
    parser.add_argument(
        "--service-account",
        default="",
        metavar="NAME",
        help="service account, for drills in pods or rights on a bucket",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Print the manifests, apart by ``---``; with --json a List of them."""
    from drd.daemon.cronjobs import Place, cron_jobs
    from drd.wiring_daemon import plans_of

    if not _PREFIX.fullmatch(args.prefix):
        raise ConfigError(f"--prefix {args.prefix!r} is no name", hint="allowed: a-z, 0-9 and dash, at most 20")
    for option in ("namespace", "config_map", "secret", "service_account"):
        _require_name("--" + option.replace("_", "-"), getattr(args, option))
    config = session.config
    place = Place(
        image=args.image,
        namespace=args.namespace,
        config_map=args.config_map,
        secret=args.secret,
        files=_files(args.secret_files),
        service_account=args.service_account,
        prefix=args.prefix,
        variables=way_back(config),
    )
    plans = plans_of(config)
    if not plans:
        raise ConfigError(
            "the configuration has no schedules, and no drills with a cron line", hint="add schedules: to it"
        )
    manifests = cron_jobs(plans, place)
    if session.as_json:
        documents.emit({"apiVersion": "v1", "kind": "List", "items": [*manifests]})
    else:
        import yaml

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times as quick, where it is built in
        print(yaml.dump_all(manifests, Dumper=dumper, sort_keys=False, allow_unicode=True, width=140), end="")
    return 0


def way_back(config: Config) -> dict[str, str]:
    """Return the variables that tell a server where it finds the pod, of each source that names no place itself."""
    from drd.config_sources import ClickHouseConfig, GatewayConfig, HolderConfig, RedisConfig

    out: dict[str, str] = {}
    for name, source in config.sources.items():
        variable = re.sub(r"[-.]", "_", name).upper()
        if isinstance(source, ClickHouseConfig) and source.mode == "gateway":
            if source.gateway.listen == GatewayConfig().listen:
                out[f"DRD_SOURCES__{variable}__GATEWAY__LISTEN"] = "$(POD_IP):0"
        elif isinstance(source, RedisConfig) and source.holder.listen == HolderConfig().listen:
            out[f"DRD_SOURCES__{variable}__HOLDER__LISTEN"] = "$(POD_IP)"
    return out


def _require_name(option: str, value: str) -> None:
    if value and not _NAME.fullmatch(value):
        raise ConfigError(f"{option} {value!r} is no name of Kubernetes", hint="allowed: a-z, 0-9, dash and dot")


def _files(given: list[str]) -> dict[str, str]:
    """Return the secrets by their folders; raises ConfigError."""
    out: dict[str, str] = {}
    for item in given:
        name, equals, folder = item.partition("=")
        if not equals or not name or not folder.startswith("/") or folder in out:
            raise ConfigError(
                f"--secret-files {item!r}", hint="such as drd-identity=/run/secrets/drd, each folder once"
            )
        _require_name("--secret-files", name)
        out[folder] = name
    return out
