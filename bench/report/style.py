"""The page's one style sheet: light, dark, on paper and on a telephone.

Colour says one thing in a plot, what a server is to us, and one in a table, whether a bar is met; both are written too.
"""

from typing import Final

CSS: Final = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #57606a; --rule: #d5dae0; --grid: #e8ebef;
  --ours: #0b5fc0; --floor: #4d545c; --peer: #8b949e; --direct: #1b1f24; --over: #b3261e;
  --met: #12693a; --not-met: #b3261e; --spread: #1b1f24; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e6e9ec; --soft: #a3acb6; --rule: #3a4149; --grid: #262b31;
    --ours: #6fb1ff; --floor: #b3bbc4; --peer: #7a838d; --direct: #e6e9ec; --over: #ff9087;
    --met: #6fd69b; --not-met: #ff9087; --spread: #f2f4f6; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3rem 0 .5rem; border-top: 2px solid var(--ink); padding-top: .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p, ul { max-width: 46rem; margin: .5rem 0; }
.lead { font-size: 1.15rem; }
.soft, figcaption, caption { color: var(--soft); }
.soft, figcaption small { font-size: .875rem; }
figure { margin: 0; }
figcaption strong { color: var(--ink); display: block; }
.plots { columns: 2 24rem; column-gap: 3rem; }
figure { max-width: 34rem; padding-top: 1rem; break-inside: avoid; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans",
  sans-serif; font-variant-numeric: tabular-nums; }
svg text { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
svg .small { font-size: 12px; fill: var(--soft); }
svg .axis { font-size: 12.5px; fill: var(--soft); }
svg .grid { stroke: var(--grid); }
svg .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .leader { stroke: var(--rule); }
svg .limit { stroke: var(--ink); stroke-width: 3; }
svg .spread { stroke: var(--spread); stroke-width: 1.5; }
.ours { --tone: var(--ours); } .floor { --tone: var(--floor); } .peer { --tone: var(--peer); }
.direct { --tone: var(--direct); } .over { --tone: var(--over); } .key { --tone: var(--soft); }
svg .ours .label, svg .ours .value, svg g.ours > .small { fill: var(--ours); }
svg .over .label, svg .over .value { fill: var(--over); }
svg .bar { fill: var(--tone); }
svg .reach, svg .line { stroke: var(--tone); stroke-width: 2; fill: none; }
svg .disc { fill: var(--tone); }
svg .ring { fill: var(--paper); stroke: var(--tone); stroke-width: 2; }
svg .tick, svg .cross { stroke: var(--tone); stroke-width: 2.5; fill: none; }
.wide { overflow-x: auto; margin: 1rem 0; }
.wide:focus-visible { outline: 2px solid var(--ours); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums;
  overflow-wrap: break-word; }
caption { text-align: left; padding: 0 0 .25rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--rule); }
thead th { border-bottom: 2px solid var(--soft); vertical-align: bottom; font-weight: 600; }
tbody th { font-weight: 400; }
.numbers th:first-child { min-width: 9rem; }
.numbers th:not(:first-child), .numbers td { text-align: right; padding: .35rem 0 .35rem 1rem; }
.numbers td { white-space: nowrap; }
.missing { border-left: 3px solid var(--not-met); padding-left: .75rem; }
.met { color: var(--met); font-weight: 600; white-space: nowrap; }
.not-met { color: var(--not-met); font-weight: 600; white-space: nowrap; }
.not-measured { color: var(--soft); font-style: italic; white-space: nowrap; }
@media (max-width: 40rem) {
  body { padding: 1rem .75rem 3rem; }
  .words thead { display: none; }
  .words tr { display: block; border-bottom: 1px solid var(--rule); padding: .5rem 0; }
  .words th, .words td { display: block; border: 0; padding: 0; }
  .words tbody th { font-weight: 600; }
  .words td::before { content: attr(data-label) ": "; color: var(--soft); font-weight: 400; font-style: normal; }
  .numbers th, .numbers td { min-width: 5.5rem; }
}
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --rule: #bbb; --grid: #ddd; --ours: #0b5fc0;
    --floor: #4d545c; --peer: #8b949e; --direct: #000; --over: #b3261e; --met: #12693a; --not-met: #b3261e;
    --spread: #000; }
  html { font-size: 9pt; }
  body { max-width: none; padding: 0; }
  .plots { columns: 2; }
  figure, tr, h2, h3 { break-inside: avoid; }
  h2, h3, figcaption { break-after: avoid; }
  svg .bar, svg .disc, svg .line { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .wide { overflow: visible; }
  .numbers td { white-space: normal; }
  caption, thead { break-after: avoid; }
}
"""
