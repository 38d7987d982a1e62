"""The policies of docs/bucket-policies.md, read from that page and put on a bucket of a real store."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from devstack.s3 import SeaweedS3

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bucket-policies.md"


def policies() -> dict[str, dict[str, Any]]:
    """Read the page: the policy below each heading; the blind role's is the backup role's without its reads."""
    text = PAGE.read_text(encoding="utf-8")
    found = dict(re.findall(r"^## (\w+)\n\n```json\n(.*?)```", text, re.MULTILINE | re.DOTALL))
    documents = {role: json.loads(policy) for role, policy in found.items()}
    assert documents.keys() == {"backup", "restore", "prune"}
    kept = [s for s in documents["backup"]["Statement"] if s["Sid"] != "ReadWhatHoldsNoData"]
    return {**documents, "blind": {**documents["backup"], "Statement": kept}}


def grant_roles(s3: SeaweedS3, bucket: str, *, backup: str = "backup") -> None:
    """Give the server's identities ``backup``, ``restore`` and ``prune`` their roles; ``backup`` may be ``blind``."""
    everything, statements = policies(), []
    for who, role in (("backup", backup), ("restore", "restore"), ("prune", "prune")):
        for statement in everything[role]["Statement"]:
            granted = json.loads(json.dumps(statement).replace("drd-backups", bucket))
            principal = {"AWS": [f"arn:aws:iam::000000000000:user/{who}"]}
            statements.append(granted | {"Principal": principal, "Sid": f"{who}{statement['Sid']}"})
    policy = {"Version": "2012-10-17", "Statement": statements}
    s3.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
