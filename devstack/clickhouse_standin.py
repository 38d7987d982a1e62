"""Be ``clickhouse server --config-file=CONFIG.xml`` for those who have no such program, by way of libchdb.so.

A stand-alone script that lies beside ``clickhouse_launcher.py`` and ``libchdb.so`` (see :mod:`devstack.standins`). It
serves the configuration as it is, with one addition: the launcher's own user ``default``, from this machine only, with
the few rights that the launcher needs. That copy lies in the server's data folder.
"""

from __future__ import annotations

import os
import runpy
import sys
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path

_LAUNCHERS_USER = """<default><password></password><networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
<profile>default</profile><quota>default</quota><grants><query>GRANT SYSTEM LISTEN ON *.*</query>
<query>GRANT READ ON FILE</query><query>GRANT CREATE TEMPORARY TABLE ON *.*</query></grants></default>"""


def main(arguments: list[str]) -> None:
    """Prepare and become the launcher; never returns."""
    here = Path(__file__).resolve().parent
    named = [word.partition("=")[2] for word in arguments if word.startswith("--config-file=")]
    if len(named) != 1:
        sys.exit(f"clickhouse stand-in: expected server --config-file=FILE, not {' '.join(arguments)}")
    config = ET.parse(named[0])  # noqa: S314 # written by who starts it
    data = Path(_text(config, "path")).absolute()
    own = data / ".standin"
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    users = ET.parse(_text(config, "users_config"))  # noqa: S314 # the same
    found = users.getroot().find("users")
    if found is None or found.find("default") is not None:
        sys.exit("clickhouse stand-in: expected users, and none named default")
    found.append(ET.fromstring(_LAUNCHERS_USER))  # noqa: S314 # the text above
    users.write(own / "users.xml")
    element = config.getroot().find("users_config")
    if element is not None:
        element.text = str(own / "users.xml")
    config.write(own / "config.xml")
    metadata = data / "metadata"
    metadata.mkdir(mode=0o700, exist_ok=True)
    if not (metadata / "system.sql").exists():  # or a second start finds its system logs broken
        (metadata / "system.sql").write_text(f"ATTACH DATABASE _ UUID '{uuid.uuid4()}'\nENGINE = Atomic\n", "utf-8")
    os.chdir(data)
    launcher = runpy.run_path(str(here / "clickhouse_launcher.py"))
    launcher["main"](str(here / "libchdb.so"), str(data), str(own / "config.xml"))


def _text(document: ET.ElementTree[ET.Element], name: str) -> str:
    found = document.getroot().findtext(name)
    if not found:
        sys.exit(f"clickhouse stand-in: the configuration has no {name}")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
