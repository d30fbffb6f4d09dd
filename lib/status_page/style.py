"""How a page looks: the colours of the page of the server, and one style sheet.

Text on its ground has a contrast of 4.5 at least, in light and in dark.
"""

from __future__ import annotations

# The same names and values as in web/static/css/tokens.css.
LIGHT = {
    "ground": "#fff",
    "raised": "#f6f7f9",
    "line": "#d8dce2",
    "text": "#1a1f26",
    "quiet": "#56606c",
    "link": "#0b5cad",
    "done": "#12683f",
    "done-ground": "#e1f3e8",
    "running": "#0b5cad",
    "running-ground": "#e2eefb",
    "failed": "#a8201a",
    "failed-ground": "#fdeae8",
    "waiting": "#764c00",
    "waiting-ground": "#fcf0d5",
    "quota": "#6a3ba8",
    "quota-ground": "#f1eafb",
    "pending": "#56606c",
    "pending-ground": "#eceff2",
}
DARK = {
    "ground": "#0f1317",
    "raised": "#171c22",
    "line": "#2d353f",
    "text": "#e4e9ef",
    "quiet": "#9da8b5",
    "link": "#7ab8ff",
    "done": "#6fd09a",
    "done-ground": "#12301f",
    "running": "#7ab8ff",
    "running-ground": "#10263f",
    "failed": "#ff9b93",
    "failed-ground": "#3d1613",
    "waiting": "#e8c15a",
    "waiting-ground": "#33270a",
    "quota": "#c4a5ff",
    "quota-ground": "#2a1d42",
    "pending": "#9da8b5",
    "pending-ground": "#222932",
}
COLOURS = {  # kind -> the colour that it has
    "done": "done", "running": "running", "waiting": "waiting", "quota": "quota",
    "blocked": "waiting", "failed": "failed", "pending": "pending", "stopped": "pending",
    "unknown": "pending",
}  # fmt: skip

_RULES = """
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.25rem 1rem 2rem; max-width: 112rem;
  background: var(--ground); color: var(--text);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere;
}
h1, h2, h3, p, ul, ol { margin: 0; padding: 0; font-weight: inherit; }
h1 { font-size: 1.5rem; line-height: 1.25; font-weight: 650; }
h2 { font-size: 1.05rem; font-weight: 650; margin: 0 0 .6rem; }
h2 small, h3 small { font-weight: 400; color: var(--quiet); font-size: .8125rem; margin-left: .4rem; }
h3 { font-size: .875rem; font-weight: 650; }
ul, ol { list-style: none; }
section { margin-top: 1.75rem; }
a { color: var(--link); }
code, pre, .mono { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: .8125rem; }
.quiet { color: var(--quiet); }
.small { font-size: .8125rem; }
.num { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
.kind { color: var(--k); }
.badge {
  display: inline-flex; align-items: center; gap: .3rem; padding: .05rem .5rem .05rem .4rem;
  border-radius: 1rem; background: var(--g); color: var(--k);
  font-size: .8125rem; font-weight: 600; white-space: nowrap; vertical-align: middle;
}
.sign { flex: none; width: 14px; height: 14px; fill: none; stroke: currentColor;
  stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; vertical-align: -2px; }
.symbols { position: absolute; }
h1 .badge { font-size: 1rem; padding: .15rem .75rem .15rem .6rem; margin-right: .6rem; }
.place { color: var(--quiet); font-size: .8125rem; }
.figures { display: flex; flex-wrap: wrap; gap: .5rem 1.75rem; margin-top: .9rem; }
.figures li { min-width: 4.5rem; }
.figures span { display: block; color: var(--quiet); font-size: .75rem; }
.figures strong { font-size: 1.05rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.counts { display: flex; flex-wrap: wrap; gap: .3rem .4rem; margin-top: .7rem; }
.shares { display: block; margin-top: .9rem; border-radius: 5px; background: var(--pending-ground); }
.shares rect { fill: var(--k); stroke: var(--ground); stroke-width: 1; }
.note { margin-top: .7rem; padding: .4rem .7rem; border-left: 3px solid var(--waiting);
  background: var(--waiting-ground); color: var(--waiting); }

.problems li { padding: .5rem .75rem; border-left: 3px solid var(--k); background: var(--raised);
  margin-bottom: .4rem; border-radius: 0 6px 6px 0; }
.problems code { display: block; margin-top: .3rem; padding: .2rem .5rem; width: fit-content;
  max-width: 100%; background: var(--ground); border: 1px solid var(--line); border-radius: 4px; }
.problems code::before { content: "$ "; color: var(--quiet); }

.stages { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr));
  gap: 1.1rem .75rem; align-items: start; }
.stage h3 { padding-bottom: .3rem; margin-bottom: .5rem; border-bottom: 2px solid var(--line); }
.stage h3 small { margin: 0; display: block; }
.lone .cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr));
  gap: 0 .6rem; align-items: start; }
.card { border: 1px solid var(--line); border-left: 4px solid var(--k); border-radius: 5px;
  padding: .35rem .55rem; margin-bottom: .4rem; background: var(--raised); font-size: .8125rem;
  break-inside: avoid; }
.card .task { display: block; font-weight: 600; font-size: .875rem; line-height: 1.3; }
.card .line { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .6rem;
  font-variant-numeric: tabular-nums; }
.card .why { color: var(--k); margin-top: .15rem; }
.card.blocked { border-style: dashed; border-left-style: solid; }
.slim .card { padding: .15rem .45rem; margin-bottom: .2rem; }
.slim .card .task { font-size: .8125rem; }
details summary { cursor: pointer; padding: .2rem 0; font-size: .8125rem; }
.star { color: var(--link); }

table { border-collapse: collapse; width: 100%; font-size: .8125rem; }
th { text-align: left; font-weight: 600; color: var(--quiet); font-size: .75rem; }
th, td { padding: .25rem .75rem .25rem 0; vertical-align: top; border-bottom: 1px solid var(--line); }
th.num { text-align: right; }
tbody th { color: inherit; font-size: inherit; }
th div { font-weight: 400; }
.rows tbody th { min-width: 16rem; }
.last { width: 40%; }
.agent { overflow-wrap: break-word; max-width: 10rem; }
.list .shares { margin: .35rem 0 0; min-width: 6rem; height: 8px; }

.timeline { table-layout: fixed; }
.timeline th, .timeline td { border: 0; padding: 0 .6rem 0 0; height: 20px; vertical-align: middle;
  white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.timeline thead th { vertical-align: bottom; }
.timeline .task { width: 15rem; } .timeline .when { width: 7rem; } .timeline .took { width: 5rem; }
.timeline td.track, .timeline th.track { padding: 0; }
.timeline tbody th { font-weight: 400; }
.timeline tbody tr.critical th { font-weight: 650; }
.timeline svg:not(.sign) { display: block; overflow: visible; }
.timeline text { font-size: 11px; fill: var(--quiet); }
.timeline .first { text-anchor: start; } .timeline .middle { text-anchor: middle; }
.timeline .last { text-anchor: end; } .timeline .before { text-anchor: end; transform: translateX(-4px); }
.timeline .behind { transform: translateX(4px); }
.timeline text.behind, .timeline text.before { fill: var(--k); font-weight: 600; }
.tick { stroke: var(--line); } .gap { fill: var(--pending-ground); }
.row rect { fill: var(--k); rx: 2px; }
.row use rect, .row rect.gap { fill: var(--pending-ground); }
.row rect.failed, .row rect.quota, .row rect.stopped, .row rect.unknown {
  fill: var(--g); stroke: var(--k); stroke-width: 1.5; }
.row rect.quota { stroke-dasharray: 4 2; } .row rect.stopped { stroke-dasharray: 1 2; }
.row rect.critical { fill: var(--text); rx: 0; }

.messages td { padding-top: .2rem; }
.messages .type, .messages .clock { white-space: nowrap; font-variant-numeric: tabular-nums; }
.messages .last { width: 65%; }
footer { margin-top: 2rem; padding-top: .6rem; border-top: 1px solid var(--line); color: var(--quiet);
  font-size: .8125rem; }

@media (max-width: 700px) {
  body { padding: .75rem .75rem 1.5rem; }
  .stages { grid-template-columns: 1fr; }
  .wide, .second { display: none; }
  .timeline .task { width: 8.5rem; } .timeline .took { width: 4rem; }
  .rows thead { display: none; }
  .rows tr { display: flex; flex-wrap: wrap; gap: 0 .6rem; padding: .35rem 0; border-bottom: 1px solid var(--line); }
  .rows th, .rows td { border: 0; padding: 0; min-width: 0; max-width: 100%; }
  .rows tbody th { width: 100%; }
  .rows .last { width: 100%; }
}
@media print {
  body { font-size: 11px; padding: 0; max-width: none; }
  section { break-inside: auto; margin-top: 1rem; }
  h2, h3 { break-after: avoid; }
  tr, li { break-inside: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def sheet() -> str:
    """The style sheet; what is printed is light."""
    kinds = "\n".join(
        f".{kind} {{ --k: var(--{colour}); --g: var(--{colour}-ground); }}"
        for kind, colour in COLOURS.items()
    )
    dark = f"@media screen and (prefers-color-scheme: dark) {{ {_variables(DARK)} }}"
    scheme = ":root { color-scheme: light dark; }"
    return f"{scheme}\n{_variables(LIGHT)}\n{dark}\n{kinds}\n{_RULES.strip()}\n"


def _variables(colours: dict[str, str]) -> str:
    return ":root { " + " ".join(f"--{name}: {value};" for name, value in colours.items()) + " }"
