"""Be a drd that goes back from a restore of ClickHouse, or ends one: ``python renaming_drd.py undo|recover RESTORE``.

Standard input says how the server is reached: one JSON object with ``url``, ``password`` and ``ca_file``. What came out
is printed; an error is printed too, and the exit code is its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.engines.clickhouse.swap import ClickHouseReplacer
from drd.errors import DrdError
from drd.model import Secret

if __name__ == "__main__":
    verb, restore_id = sys.argv[1:]
    asked = json.loads(sys.stdin.readline())
    settings = ClickHouseSettings(asked["url"], Secret(asked["password"]), ca_file=Path(asked["ca_file"]))
    try:
        sys.stdout.write(f"{getattr(ClickHouseReplacer(settings), verb)(restore_id)}\n")
    except DrdError as error:
        sys.stdout.write(f"{error.message} ({error.hint})\n")
        sys.exit(error.exit_code)
