"""The report as one HTML file that needs no other files, and lets nothing run but its own script."""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toast_cli import __version__
from toast_cli.machine.console import visible
from toast_cli.report.captions import caption
from toast_cli.report.tables import Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --soft: #595959; --line: #ddd; --head: #f2f2f2; --band: #fafafa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --soft: #a8a8a8; --line: #3a3d42; --head: #25282d; --band: #1c1f23; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h1, h2, summary, p, li { overflow-wrap: anywhere; }
.table { overflow: auto; max-height: 36rem; border: 1px solid var(--line); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; background: var(--paper); }
th { position: sticky; top: 0; z-index: 1; background: var(--head); white-space: normal; vertical-align: bottom; }
tr:nth-child(even) td { background: var(--band); }
td.text, th.text { text-align: left; } td.best { font-weight: 700; } td.second { text-decoration: underline; }
th.plan, td.plan { position: sticky; left: 0; } th.plan { z-index: 2; }
td.plan { white-space: normal; overflow-wrap: anywhere; min-width: 5rem; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " \\2191"; } th[aria-sort=descending] button::after { content: " \\2193"; }
input { font: inherit; margin: .4rem 0; padding: .2rem .5rem; max-width: 100%; box-sizing: border-box; }
summary { font-weight: 600; margin: 1.2rem 0 .4rem; cursor: pointer; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; height: auto; background: #fff; }
figcaption, .note { color: var(--soft); font-size: .85rem; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 .6rem; font-size: 14px; } th, td { padding: .2rem .35rem; } td.plan { max-width: 8rem; }
}
"""
# Sorts a table by the column whose head is pressed, and hides the rows that lack the words typed above it.
_SCRIPT = """
for (const box of document.querySelectorAll('.table')) {
  const table = box.querySelector('table'), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const filter = Object.assign(document.createElement('input'), {type: 'search', placeholder: 'filter rows'});
  filter.setAttribute('aria-label', 'filter rows');
  filter.addEventListener('input', () => {
    const words = filter.value.toLowerCase().split(/\\s+/);
    for (const row of body.rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
  box.before(filter);
  heads.forEach((head, column) => {
    const button = document.createElement('button');
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const up = head.getAttribute('aria-sort') === 'descending' || (head.classList.contains('text') && !head.ariaSort);
      const text = row => row.cells[column].textContent;
      const order = head.classList.contains('text')
        ? (a, b) => text(a).localeCompare(text(b), undefined, {numeric: true})
        : (a, b) => parseFloat(text(a).replace('[', '')) - parseFloat(text(b).replace('[', ''));
      const empty = row => text(row) === '' || text(row) === '–';
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      body.append(...[...body.rows].sort((a, b) => empty(a) - empty(b) || (up ? order(a, b) : order(b, a)) || 0));
    });
  });
}
"""
_CLASSES = {1: "best", 2: "second", None: ""}


def render(
    sources: list[Path],
    tables: list[Table],
    pictures: dict[str, bytes],
    notes: Sequence[str] = (),
    folded: Sequence[Table] = (),
    settings: Mapping[Path, Mapping[str, Any]] | None = None,
) -> str:
    """The page as HTML. ``pictures`` are PNG files by name, ``sources`` the folders of the runs, ``notes`` sentences.

    Tables that are ``folded`` show their titles until they are opened, and so do the ``settings`` of the runs by dotted key.
    """
    parts = [f"<h1>toast report</h1><p class='note'>toast {__version__}; {len(sources)} runs</p>"]
    parts += [f"<p>{_text(note)}</p>" for note in notes]
    parts += [f"<h2>{_text(table.title)}</h2>{_table(table)}" for table in tables]
    parts += [f"<details><summary>{_text(table.title)}</summary>{_table(table)}</details>" for table in folded]
    parts += [_picture(name, content) for name, content in pictures.items()]
    parts.append(_runs(sources, settings or {}))
    rules = f"default-src 'none'; img-src data:; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; base-uri 'none'; form-action 'none'"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{rules}">'
        f"<meta name='viewport' content='width=device-width'><title>toast report</title><style>{_STYLE}</style>"
    )
    body = f"{''.join(parts)}<script>{_SCRIPT}</script>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body></html>\n"


def _hash(code: str) -> str:
    """How a browser is told that this very ``code`` may be used, whatever else is in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _text(text: str) -> str:
    """``text`` as HTML shows it, in an element or in an attribute in quotes."""
    return html.escape(visible(text))


def _table(table: Table) -> str:
    plan = table.head.index("plan")

    def cell(tag: str, i: int, text: str, rank: int | None = None) -> str:
        classes = " ".join(filter(None, ("text" * (i in table.of_words), "plan" * (i == plan), _CLASSES[rank])))
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
    data, words = base64.b64encode(content).decode(), caption(name)
    file = f"figures/{name}.png, .pdf"
    return (
        f"<figure><img alt='{_text(words or name)}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{_text(words)} <code>{_text(file)}</code></figcaption></figure>"
    )


def _runs(sources: Sequence[Path], settings: Mapping[Path, Mapping[str, Any]]) -> str:
    """The folders of the runs, what all have been told, and for each what others have not."""
    known = [settings.get(path, {}) for path in sources]
    keys = list(dict.fromkeys(key for each in known for key in each))
    shared = [key for key in keys if len({str(each[key]) if key in each else () for each in known}) == 1]
    listed = "".join(
        f"<li><code>{_text(str(path))}</code> {_settings(each, [key for key in keys if key in each and key not in shared])}</li>"
        for path, each in zip(sources, known, strict=True)
    )
    common = f"<p>Settings of all: {_settings(known[0], shared)}</p>" if shared else ""
    return f"<details><summary>Runs and their settings</summary><ul>{listed}</ul>{common}</details>"


def _settings(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    values = {key: "null" if settings[key] is None else settings[key] for key in keys}
    return " ".join(f"<code>{_text(f'{key}={value}')}</code>" for key, value in values.items())
