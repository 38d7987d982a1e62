"""Work 1,000 sources and 100 TB through on paper: objects, requests, memory, money; docs/scale.md quotes it.

``python benchmarks/scale.py``. Part sizes, manifests and heads are those of drd's own code; what is assumed stands in
capitals below. It moves no data and has no peer.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from catalog import made

from drd.repository import manifest
from drd.repository.chunking import part_size_at

GB, TB, MIB = 10**9, 10**12, 1 << 20
STORED_SHARE = 0.4  # of the plain bytes, after zstd -1; 0.36 was measured on the trading platform's PostgreSQL
SMALLEST_TABLE = 4 * MIB  # what is smaller shares one stream
REQUESTS_A_RUN = 12  # besides parts: manifest, index, lease, chain; an estimate
SAMPLE_A_DAY = 0.05  # drd verify --sample 5%
GIB_MONTH = ((50 * 1024, 0.023), (450 * 1024, 0.022), (float("inf"), 0.021))  # S3 Standard, us-east-1, $ by GiB
PUT_OR_LIST, GET = 0.005 / 1000, 0.0004 / 1000
HEAD_BYTES = 1200  # of memory for the head of a backup; measured with tracemalloc on CPython 3.11
DAYS = 30


@dataclass(frozen=True)
class Tier:
    """Sources alike: how many, how large, how often backed up, what share of their data is stored again each day."""

    name: str
    count: int
    size: int
    runs_a_day: int
    again_a_day: float


@dataclass(frozen=True)
class Plan:
    """When a full backup is due: after so many days, or so many incremental ones; and which backups are kept.

    All within a time, then one a week and one a month, so many in all.
    """

    name: str
    full_every_days: float
    max_chain: int
    within_days: int
    weekly: int
    monthly: int

    def full_days(self, tier: Tier) -> float:
        """Return how many days lie between two full backups of a source."""
        return min(self.full_every_days, (self.max_chain + 1) / tier.runs_a_day)

    @property
    def older(self) -> tuple[float, float]:
        """Return how many weekly and monthly backups are older than those that are kept for their age."""
        return max(0.0, self.weekly - self.within_days / 7), max(0.0, self.monthly - self.weekly * 7 / DAYS)


TIERS = (
    Tier("small, hourly", 900, 10 * GB, 24, 0.20),
    Tier("middle, 6-hourly", 90, 300 * GB, 4, 0.10),
    Tier("large, daily", 10, 6400 * GB, 1, 0.05),
)
PLANS = (
    Plan("A. defaults: full_every 7d, max_chain 24; keep_within 30d, weekly 12, monthly 12", 7, 24, 30, 12, 12),
    Plan("B. max_chain 200", 7, 200, 30, 12, 12),
    Plan("C. max_chain 200; keep_within 7d, weekly 4, monthly 3", 7, 200, 7, 4, 3),
)


def tables(size: int) -> list[int]:
    """Return the streams of a source: the largest table has half, the next a quarter, and so on."""
    out = []
    while size > SMALLEST_TABLE:
        out.append(size // 2)
        size -= size // 2
    return [*out, size]


def parts(size: int) -> int:
    """Return how many parts a stream of so many bytes is cut into."""
    count = offset = 0
    while offset < size:
        offset += part_size_at(offset)
        count += 1
    return count


def stored_copies(tier: Tier, plan: Plan) -> float:
    """Return how often the data of a source lies in the store, in full sizes: full backups, and what came between."""
    full_days = plan.full_days(tier)
    recent = plan.within_days / full_days + 1 + plan.within_days * tier.again_a_day
    older = sum(plan.older) * (1 + full_days / 2 * tier.again_a_day)  # each with the chain that it stands on
    return recent + older


def money_of(gib: float) -> float:
    """Return what a month of so much storage costs."""
    total = 0.0
    for width, price in GIB_MONTH:
        here = min(gib, width)
        total += here * price
        gib -= here
    return total


def per_part() -> float:
    """Return how many bytes of a manifest each part takes."""
    backups = [made("trading-postgres", datetime(2026, 11, 22, tzinfo=UTC), random.Random(1), n) for n in (50, 400)]
    sizes = [len(manifest.to_json(backup)) for backup in backups]
    counts = [sum(len(artifact.parts) for artifact in backup.artifacts) for backup in backups]
    return (sizes[1] - sizes[0]) / (counts[1] - counts[0])


def main() -> None:
    """Print the tables."""
    part_bytes = per_part()
    counts = {tier: sum(parts(size) for size in tables(tier.size)) for tier in TIERS}
    total = sum(tier.count * tier.size for tier in TIERS)
    print(f"{sum(t.count for t in TIERS):,} sources, {total / TB:.0f} TB")
    print(f"{'':<18}{'sources':>8}{'each':>10}{'runs/day':>10}{'parts of a full':>17}{'its manifest':>14}")
    for tier, count in counts.items():
        sized = f"{tier.size / GB:,.0f} GB"
        mib = f"{count * part_bytes / MIB:,.1f} MiB"
        print(f"{tier.name:<18}{tier.count:>8}{sized:>10}{tier.runs_a_day:>10}{count:>17,}{mib:>14}")
    for plan in PLANS:
        show(plan, counts)
    largest = manifest.MAX_MANIFEST_BYTES / part_bytes * 32 * MIB / TB
    print(f"\na manifest takes {part_bytes:.0f} bytes a part; its limit of 256 MiB is a source of {largest:.0f} TB")


def show(plan: Plan, counts: dict[Tier, int]) -> None:
    """Print what the store holds and does in a month."""
    stored = sum(t.count * t.size * STORED_SHARE * stored_copies(t, plan) for t in TIERS)
    objects = sum(t.count * counts[t] * stored_copies(t, plan) for t in TIERS)
    again = {t: t.count * counts[t] * (1 / plan.full_days(t) + t.again_a_day) for t in TIERS}  # parts a day
    runs = sum(t.count * t.runs_a_day for t in TIERS)
    puts = sum(again.values()) + runs * REQUESTS_A_RUN / 2
    lists = objects / 1000 + runs  # prune looks at every name once a day; each run at its source's
    gets = objects * SAMPLE_A_DAY + runs * REQUESTS_A_RUN / 2
    a_day = puts + lists + gets
    shipped = sum(t.count * t.size * STORED_SHARE * (1 / plan.full_days(t) + t.again_a_day) for t in TIERS)
    kept = sum(t.count * (t.runs_a_day * plan.within_days + sum(plan.older)) for t in TIERS)
    storage, writes, reads = money_of(stored / 2**30), DAYS * (puts + lists) * PUT_OR_LIST, DAYS * gets * GET
    print(f"\n{plan.name}")
    for line in (
        f"  stored                {stored / TB:10,.0f} TB in {objects / 1e6:,.0f} million objects",
        f"  backups               {kept:10,.0f}, their heads together {kept * HEAD_BYTES / MIB:,.0f} MiB of memory",
        f"  shipped               {shipped / TB:10,.1f} TB a day, {shipped / 86400 / 1e6:,.0f} MB/s on average",
        f"  requests              {a_day / 1e6:10,.2f} million a day, {a_day / 86400:,.0f} a second on average",
        f"  of them puts          {puts / 1e6:10,.2f} million a day, {puts / 86400:,.0f} a second",
        f"  of them lists         {lists / 1e6:10,.3f} million a day, ${DAYS * lists * PUT_OR_LIST:,.0f} a month",
        f"  storage               ${storage:10,.0f} a month",
        f"  puts and lists        ${writes:10,.0f} a month",
        f"  gets                  ${reads:10,.0f} a month",
    ):
        print(line)


if __name__ == "__main__":
    main()
