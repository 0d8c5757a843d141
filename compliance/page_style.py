"""How the page of figures looks: system fonts, two colours, light and dark. PURE."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { --paper: #fdfcfa; --ink: #1d2326; --soft: #5b656b; --rule: #dcdad4; --tile: #f3f1ec;
  --ours: #0f6b58; --theirs: #a9adb2; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181a; --ink: #e6e8e6; --soft: #a3adb1; --rule: #30383c; --tile: #1c2225;
    --ours: #58c4a9; --theirs: #6d767c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 3.5rem 1.5rem 4rem; }
h1 { font: 600 2rem/1.2 ui-serif, Georgia, "Times New Roman", serif; margin: 0 0 .75rem;
  letter-spacing: -.01em; }
h2 { font: 600 1.25rem/1.3 ui-serif, Georgia, "Times New Roman", serif; margin: 3rem 0 .75rem; }
header p, footer, p { color: var(--soft); max-width: 46rem; }
code { font: .875em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 2rem 0 1.5rem; }
.tiles div { background: var(--tile); border-radius: .5rem; padding: .9rem 1rem; }
.tiles dt { color: var(--soft); font-size: .8125rem; line-height: 1.35; min-height: 2.2em; }
.tiles dd { margin: .1rem 0 0; font: 600 1.6rem/1.2 ui-serif, Georgia, serif;
  font-variant-numeric: tabular-nums; }
.tiles small { display: block; font: .8125rem/1.4 system-ui, sans-serif; color: var(--soft); }
.legend { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem; font-size: .875rem; }
.key { width: .9rem; height: .7rem; border-radius: 2px; display: inline-block; }
.key.ours { background: var(--ours); } .key.theirs { background: var(--theirs); margin-left: 1rem; }
figure { margin: 2.25rem 0; }
figcaption { font-weight: 600; margin-bottom: .75rem; }
svg { width: 100%; height: auto; font: 12.5px system-ui, sans-serif; }
svg .ours { fill: var(--ours); } svg .theirs { fill: var(--theirs); }
svg .line { fill: none; stroke: var(--ours); stroke-width: 2; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .name { fill: var(--ink); text-anchor: end; }
svg .axis { fill: var(--soft); text-anchor: middle; }
svg .value { fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } .scroll:focus-visible { outline: 2px solid var(--ours); }
table { border-collapse: collapse; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: .4rem .6rem; text-align: right; border-bottom: 1px solid var(--rule); }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
th[scope=row], thead th:first-child { text-align: left; font-weight: 500; white-space: nowrap; }
footer { margin-top: 3rem; font-size: .8125rem; }
@media print { :root { --paper: #fff; } main { padding: 0; } figure { break-inside: avoid; } }
"""
