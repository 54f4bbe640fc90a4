"""The report as one HTML file that needs no other files."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from toast_cli import __version__
from toast_cli.machine.console import visible
from toast_cli.report.tables import Table

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1a1a1a; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.table { overflow-x: auto; max-height: 36rem; overflow-y: auto; border: 1px solid #ddd; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th { position: sticky; top: 0; background: #f2f2f2; } tr:nth-child(even) td { background: #fafafa; }
td.text, th.text { text-align: left; } td.best { font-weight: 700; } td.second { text-decoration: underline; }
summary { font-weight: 600; margin: 1.2rem 0 .4rem; cursor: pointer; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; height: auto; } figcaption, .note { color: #555; font-size: .85rem; }
"""
_CLASSES = {1: "best", 2: "second", None: ""}


def render(
    sources: list[Path],
    tables: list[Table],
    pictures: dict[str, bytes],
    notes: Sequence[str] = (),
    folded: Sequence[Table] = (),
) -> str:
    """The page as HTML. ``pictures`` are PNG files by name, ``sources`` the folders of the runs, ``notes`` sentences.

    Tables that are ``folded`` show their titles until they are opened.
    """
    parts = [f"<h1>toast report</h1><p class='note'>toast {__version__}; {len(sources)} runs</p>"]
    parts += [f"<p>{_text(note)}</p>" for note in notes]
    parts += [f"<h2>{_text(table.title)}</h2>{_table(table)}" for table in tables]
    parts += [f"<details><summary>{_text(table.title)}</summary>{_table(table)}</details>" for table in folded]
    parts += [_picture(name, content) for name, content in pictures.items()]
    listed = "".join(f"<li><code>{_text(str(path))}</code></li>" for path in sources)
    parts.append(f"<details><summary>Runs</summary><ul>{listed}</ul></details>")
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>toast report</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _text(text: str) -> str:
    """``text`` as HTML shows it, in an element or in an attribute in quotes."""
    return html.escape(visible(text))


def _table(table: Table) -> str:
    texts = table.head.index("plan") + 1

    def cell(tag: str, i: int, text: str, rank: int | None = None) -> str:
        classes = " ".join(filter(None, ("text" if i < texts else "", _CLASSES[rank])))
        return f"<{tag} class='{classes}'>{_text(text)}</{tag}>"

    head = "".join(cell("th", i, text) for i, text in enumerate(table.head))
    body = "".join(
        f"<tr>{''.join(cell('td', i, text, rank) for i, (text, rank) in enumerate(zip(cells, ranks, strict=True)))}</tr>"
        for cells, ranks in table.rows
    )
    return (
        f"<div class='table'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<p class='note'>{_text(table.note)}</p>"
    )


def _picture(name: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    return f"<figure><img alt='{_text(name)}' src='data:image/png;base64,{data}'><figcaption>figures/{_text(name)}.png, .pdf</figcaption></figure>"
