"""The look that all of drd's pages share: one accent, red only for what needs a person, light and dark, for paper too.

Style sheets are inline, so that a page stands alone in a file or a mail; :func:`style_source` is what a
Content-Security-Policy needs to let one through and nothing else. No page has a ``style`` attribute or a script.
"""

from __future__ import annotations

import base64
import hashlib

LOOK = """
:root{color-scheme:light dark;--ink:#1b2320;--dim:#55625c;--line:#dbe1de;--paper:#fff;--soft:#f4f7f5;--accent:#0b6b57;
--wash:#d9ebe4;--good:var(--accent);--bad:#b3261e;--doubt:#835200;--alarm:#fdf1ef}
@media (prefers-color-scheme:dark){:root{--ink:#e3eae6;--dim:#9aa8a1;--line:#2d3632;--paper:#111513;--soft:#191f1c;
--accent:#63cbb0;--wash:#1d3a32;--bad:#ff8f85;--doubt:#e9b75c;--alarm:#2a1816}}
@media print{:root{--ink:#000;--dim:#444;--line:#bbb;--paper:#fff;--soft:#fff;--accent:#0b6b57;--wash:#d9ebe4;
--bad:#b3261e;--doubt:#835200;--alarm:#fff}}
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:var(--ink);background:var(--paper);
margin:0 auto;padding:1.5rem;font-variant-numeric:tabular-nums}
p{margin:.3rem 0}a{color:var(--accent);text-underline-offset:.15em}
code,pre{font:14px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
"""


def style_source(style: str) -> str:
    """Return the ``style-src`` of a Content-Security-Policy that allows this inline style sheet."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"
