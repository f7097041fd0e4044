"""Reports of the suite: a table for a terminal, an HTML page with one or several servers, and Markdown."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

import orjson

from .exchange import Json
from .run import Finding, Report

_SENT: Final = 400  # characters that Markdown shows of a request
_RECEIVED: Final = 600  # of a response
_REASON: Final = 240
_MARK: Final = {"passed": "ok", "failed": "FAILED", "not applicable": "n/a"}
_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
.failed { color: #c22; font-weight: 600; } .passed { color: #282; } .na { color: #888; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; }
@media (prefers-color-scheme: dark) { .failed { color: #f77; } .passed { color: #7c7; } }
""".strip()


def line(finding: Finding) -> str:
    """One finding as a line for a terminal."""
    reason = f": {finding.reason}" if finding.reason else ""
    return f"{_MARK[finding.outcome]:6}  {finding.weight:6}  {finding.area}: {finding.name}{reason:.300}"


def table(report: Report) -> str:
    """The outcome by area, for a terminal."""
    rows: list[tuple[str, ...]] = [("area", "must", "should", "may", "failed")]
    for area in dict.fromkeys(finding.area for finding in report.findings):
        of_area = [one for one in report.findings if one.area == area and one.outcome != "not applicable"]
        rows.append((area, *_columns(of_area), str(sum(one.outcome == "failed" for one in of_area))))
    judged = [one for one in report.findings if one.outcome != "not applicable"]
    rows.append(("all", *_columns(judged), str(report.count(outcome="failed"))))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _columns(findings: Sequence[Finding]) -> Iterator[str]:
    """How many checks passed of how many, for each weight."""
    for weight in ("must", "should", "may"):
        of_weight = [one for one in findings if one.weight == weight]
        passed = sum(one.outcome == "passed" for one in of_weight)
        yield f"{passed}/{len(of_weight)}" if of_weight else "-"


def json_document(report: Report) -> bytes:
    """The report as a JSON document."""
    return orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2) + b"\n"


def failures_in_markdown(report: Report) -> str:
    """The failed checks of a server, each with what was sent last and what came back, cut to a few lines."""
    failed = [one for one in report.findings if one.outcome == "failed"]
    parts = [f"## {report.server} (profile {report.profile}): {len(failed)} failed"]
    for one in failed:
        parts.append(f"**{one.area}: {one.name}** ({one.weight}): {_plain(one.reason)}")
        for exchange in one.exchanges[-1:]:
            sent = f"{exchange['request']}\n{_cut(exchange['request_body'], _SENT)}"
            received = f"{exchange['status']}\n{_cut(exchange['response_body'], _RECEIVED)}"
            parts.append(f"~~~text\n{sent}\n\n{received}\n~~~")
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """One line, in which Markdown reads no marks."""
    return "".join(f"\\{char}" if char in "\\`*_<>[]" else char for char in _cut(" ".join(text.split()), _REASON))


def _cut(text: str, most: int) -> str:
    """The beginning and the end of a text, without an end of the block around it."""
    text = text.strip().replace("~~~", "~ ~ ~")
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


def page(reports: Sequence[Report]) -> str:
    """An HTML page that loads nothing: the servers side by side, and each failure with what was sent and received."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>Conformance with the Messages API</title><style>{_STYLE}</style></head><body>",
            "<h1>Conformance with the Messages API</h1>",
            *_summary(reports),
            *_matrix(reports),
            *(part for number, report in enumerate(reports) for part in _failures(report, number)),
            "</body></html>",
            "",
        ]
    )


def _summary(reports: Sequence[Report]) -> Iterator[str]:
    yield "<table><thead><tr><th>server</th><th>profile</th><th>model</th><th>began</th><th>must</th><th>should</th>"
    yield "<th>may</th></tr></thead><tbody>"
    for report in reports:
        judged = [one for one in report.findings if one.outcome != "not applicable"]
        cells = (report.server, report.profile, report.model, report.began, *_columns(judged))
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table>"


def _matrix(reports: Sequence[Report]) -> Iterator[str]:
    """A row for each check, a column for each server."""
    yield "<h2>Checks</h2><table><thead><tr><th>check</th><th>weight</th><th>authority</th>"
    yield "".join(f"<th>{escape(report.server)}</th>" for report in reports) + "</tr></thead><tbody>"
    found = [{(one.area, one.name): one for one in report.findings} for report in reports]
    rows = {key: one for findings in found for key, one in findings.items()}
    for key, one in rows.items():
        cells = "".join(_cell(findings.get(key), number) for number, findings in enumerate(found))
        name, authority = escape(f"{one.area}: {one.name}"), escape(one.authority)
        yield f"<tr><td>{name}</td><td>{one.weight}</td><td>{authority}</td>{cells}</tr>"
    yield "</tbody></table>"


def _cell(finding: Finding | None, number: int) -> str:
    if finding is None:
        return "<td></td>"
    if finding.outcome == "failed":
        return f'<td class="failed"><a class="failed" href="#{_anchor(finding, number)}">failed</a></td>'
    kind = "passed" if finding.outcome == "passed" else "na"
    return f'<td class="{kind}" title="{escape(finding.reason)}">{escape(finding.outcome)}</td>'


def _anchor(finding: Finding, number: int) -> str:
    return escape(f"{number}-{finding.name}".replace(" ", "-"))


def _failures(report: Report, number: int) -> Iterator[str]:
    failed = [one for one in report.findings if one.outcome == "failed"]
    yield f"<h2>{escape(report.server)}: {len(failed)} failed</h2>"
    for one in failed:
        yield f'<h3 id="{_anchor(one, number)}">{escape(one.name)}</h3><p>{escape(one.reason)}</p>'
        for exchange in one.exchanges:
            yield f"<pre>{escape(_exchange(exchange))}</pre>"


def _exchange(exchange: Json) -> str:
    def head(name: str) -> str:
        return "\n".join(f"{field}: {value}" for field, value in exchange[name].items())

    return (
        f"{exchange['request']}\n{head('request_headers')}\n\n{exchange['request_body']}\n\n"
        f"{exchange['status']}\n{head('response_headers')}\n\n{exchange['response_body']}\n{exchange['cut']}"
    )
