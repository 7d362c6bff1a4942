"""The file of a GPU report: a page with a picture, the tables in words, and everything as JSON."""

import html
import json
import math
from pathlib import Path
from typing import Any

from numbaconv.bench.ratios import Comparison, compares, geometric_mean, ratio

__all__ = ["is_right", "merged", "read", "text", "write"]

_BEGIN, _END = '<script type="application/json" id="report">', "</script>"

#: What is asked, where something is: the geometric mean over the layers.
_GOALS = {
    "float32, prepared, kernels alone, vs cuDNN": 1.2,
    "float16, prepared, kernels alone, vs cuDNN": 0.8,
    "depthwise, prepared, kernels alone, vs cuDNN": 1.5,
    "float32 gradient by the input vs cuDNN": 1.0,
    "float32 gradient by the weight vs cuDNN": 1.0,
}
_PREPARED, _GRAPH = "numbaconv_prepared", "numbaconv_prepared graph"
_COMPARISONS = (
    Comparison("float32, prepared, kernels alone, vs cuDNN", "forward", _GRAPH, ("cudnn graph",)),
    Comparison("float32, prepared, kernels alone, vs cuDNN with TF32", "forward", _GRAPH, ("cudnn_tf32 graph",)),
    Comparison("float16, prepared, kernels alone, vs cuDNN", "forward", _GRAPH, ("cudnn_f16 graph",)),
    Comparison("float32, prepared, calls, vs cuDNN", "forward", _PREPARED, ("cudnn",)),
    Comparison("float32 forward calls vs cuDNN", "forward", "numbaconv", ("cudnn",)),
    Comparison("float16, prepared, calls, vs cuDNN", "forward", _PREPARED, ("cudnn_f16",)),
    Comparison("float32 gradient by the input vs cuDNN", "input", "numbaconv", ("cudnn",)),
    Comparison("float32 gradient by the input vs cuDNN with TF32", "input", "numbaconv", ("cudnn_tf32",)),
    Comparison("float16 gradient by the input vs cuDNN", "input", "numbaconv", ("cudnn_f16",)),
    Comparison("float32 gradient by the weight vs cuDNN", "weight", "numbaconv", ("cudnn",)),
    Comparison("float32 gradient by the weight vs cuDNN with TF32", "weight", "numbaconv", ("cudnn_tf32",)),
    Comparison("float16 gradient by the weight vs cuDNN", "weight", "numbaconv", ("cudnn_f16",)),
)
_DEPTHWISE = Comparison("depthwise, prepared, kernels alone, vs cuDNN", "forward", _GRAPH, ("cudnn graph",))


def is_right(report: dict[str, Any]) -> bool:
    """Whether there are results, and nothing was wrong and nothing failed."""
    records = report["checks"] + report["times"]
    right = all(record["right"] for record in report["checks"] + report["memory"])
    failed = report["failed"] or report["lost"] or any(record["errors"] for record in report["times"])
    return bool(records) and right and not failed


def merged(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """One report of several parts, from one machine."""
    first = reports[0]
    others = {each["device"] for each in reports} - {first["device"]}
    if others:
        raise SystemExit(f"reports of different devices: {first['device']}, {', '.join(sorted(others))}")
    found = dict(first)
    for name in ("checks", "memory", "times", "not reached", "failed", "lost"):
        found[name] = [record for each in reports for record in each[name]]
    found["seconds"] = sum(each.get("seconds", 0.0) for each in reports)
    peaks = [each["peak"] for each in reports if each["peak"]]
    found["peak"] = {name: max(each[name] for each in peaks) for name in peaks[0]} if peaks else {}
    return found


def summary(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """For each comparison the geometric mean of the ratios, how many layers, and what is asked."""
    found = {}
    for comparison in (*_COMPARISONS, _DEPTHWISE):
        chosen = [record for record in report["times"] if compares(record, comparison)]
        if comparison is _DEPTHWISE:
            chosen = [record for record in chosen if record["depthwise"]]
        if chosen:
            mean = geometric_mean(ratio(record, comparison) for record in chosen)
            found[comparison.title] = {"mean": mean, "layers": len(chosen), "asked": _GOALS.get(comparison.title)}
    return found


def text(report: dict[str, Any]) -> str:
    """The tables."""
    versions = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    lines = [f"{report['device']}; {versions}", f"{report.get('seconds', 0):.0f} s"]
    if report["simulated"]:
        lines.append("In the simulator: times mean nothing.")
    if report["peak"]:
        peak = report["peak"]
        rates = ", ".join(f"{name} {peak[name]:.4g} TFLOP/s" for name in ("float32", "tf32", "float16"))
        lines.append(f"measured: copies {peak['GB/s']:.4g} GB/s; PyTorch's square products {rates}")
    for record in report["lost"]:
        lines.append(f"LOST the device, and went on without it: {_words(record)}: {record['error']}")
    lines += [f"FAILED {record['what']}: {record['error']}" for record in report["failed"]]
    lines += ["", *_checks(report["checks"]), "", *_memory(report["memory"]), "", *_times(report)]
    if report["not reached"]:
        lines += ["", f"Not reached in time: {', '.join(report['not reached'])}"]
    return "\n".join(lines)


def _words(record: dict[str, Any]) -> str:
    """What a record is of, as far as it says."""
    names = ("layer", "batch", "kind", "direction", "algorithm", "what")
    return " ".join(str(record[name]) for name in names if name in record)


def _checks(records: list[dict[str, Any]]) -> list[str]:
    wrong = [record for record in records if not record["right"]]
    lines = [f"{len(records)} results compared with the CPU's, each computed twice; {len(wrong)} wrong"]
    for record in wrong:
        reason = record.get("error") or (
            f"same bits: {record['same bits']}, error {record['of the bound']:.3g} of its bound"
        )
        lines.append(f"  WRONG {_case(record)} {record['algorithm']}: {reason}")
    rows = [("largest error, of the bound", "forward", "input", "weight")]
    for name in sorted({record["algorithm"] for record in records}):
        for kind in sorted({record["kind"] for record in records}):
            chosen = [each for each in records if (each["algorithm"], each["kind"]) == (name, kind)]
            cells = []
            for direction in rows[0][1:]:
                found = [each["of the bound"] for each in chosen if each["direction"] == direction and each["right"]]
                cells.append(f"{max(found):.3f} ({len(found)})" if found else "")
            rows.append((f"{name}, {kind}", *cells))
    return lines + _aligned(rows)


def _memory(records: list[dict[str, Any]]) -> list[str]:
    if not records:
        return []
    lines = []
    for what in dict.fromkeys(record["what"] for record in records):
        chosen = [record for record in records if record["what"] == what]
        wrong = [record for record in chosen if not record["right"]]
        lines.append(f"{what}: {len(chosen)} ways to call; {len(wrong)} wrong")
        for record in wrong:
            case = " ".join(record[name] for name in ("layer", "kind", "direction", "algorithm"))
            lines.append(f"  WRONG {case}: {record['error']}")
    return lines


def _times(report: dict[str, Any]) -> list[str]:
    lines = []
    for record in report["times"]:
        for name, error in record["errors"].items():
            lines.append(f"FAILED {_case(record)} {name}: {error}")
    for title, found in summary(report).items():
        goal = f", asked {found['asked']:g}" if found["asked"] else ""
        lines.append(f"{found['mean']:6.2f}  {title} ({found['layers']} layers{goal})")
    groups = dict.fromkeys((record["kind"], record["direction"]) for record in report["times"])
    for kind, direction in groups:
        chosen = [each for each in report["times"] if (each["kind"], each["direction"]) == (kind, direction)]
        lines += ["", f"{kind}, {direction}: microseconds; then of numbaconv's best", *_aligned(_rows(chosen, report))]
    return lines


def _rows(chosen: list[dict[str, Any]], report: dict[str, Any]) -> list[tuple[str, ...]]:
    names = list(dict.fromkeys(name for record in chosen for name in record["times"]))
    rows = [("layer", *names, "ratio", "TFLOP/s", "of products, %", "of copies, %")]
    rate = "float32" if chosen[0]["kind"] == "float32" else "float16"
    for record in chosen:
        times = {name: min(found) for name, found in record["times"].items()}
        cells = [f"{1e6 * times[name]:.1f}" if name in times else "" for name in names]
        ours = min((value for name, value in times.items() if name.startswith("numbaconv")), default=math.nan)
        peer = "cudnn" if rate == "float32" else "cudnn_f16"
        theirs = min((value for name, value in times.items() if name.split()[0] == peer), default=math.nan)
        tflops = record["flops"] / ours / 1e12
        shares = tflops / report["peak"][rate], record["bytes"] / ours / 1e9 / report["peak"]["GB/s"]
        cells += [f"{theirs / ours:.2f}", f"{tflops:.3g}", *(f"{100 * share:.1f}" for share in shares)]
        rows.append((f"{record['layer'].split('/', 1)[-1]} x{record['batch']}", *cells))
    return rows


def _case(record: dict[str, Any]) -> str:
    return f"{record['layer']} x{record['batch']} {record['kind']} {record['direction']}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def picture(report: dict[str, Any]) -> str:
    """Bars of cuDNN's time over numbaconv's, layer by layer, as SVG; none where nothing was compared."""
    panels = []
    for comparison in _COMPARISONS:
        chosen = [each for each in report["times"] if compares(each, comparison)]
        bars = [(each["layer"].split("/", 1)[-1], ratio(each, comparison)) for each in chosen]
        if bars:
            panels.append((comparison.title, bars))
    if not panels:
        return ""
    row, width, left, across = 14, 560, 250, 2
    parts, tops = [], [20] * across
    for title, bars in panels:
        place = tops.index(min(tops))
        x, y = place * width, tops[place]
        parts.append(f'<text x="{x}" y="{y}" font-weight="bold">{html.escape(title)}</text>')
        bottom = y + 6 + row * len(bars)
        for at, (name, value) in enumerate(bars):
            top, step = y + 6 + row * at, 45 * max(min(math.log2(value), 3), -3)  # an octave is 45 wide
            one = x + left + 135
            colour = "#2a7" if value >= 1 else "#c53"
            parts.append(f'<text x="{x}" y="{top + 10}">{html.escape(name[:40])}</text>')
            parts.append(
                f'<rect x="{one + min(step, 0):.1f}" y="{top}" width="{abs(step):.1f}" height="11" fill="{colour}"/>'
            )
            parts.append(f'<text x="{x + left + 275}" y="{top + 10}">{value:.2f}</text>')
        for octave in range(-3, 4):
            at = x + left + 135 + 45 * octave
            parts.append(f'<path d="M{at} {y + 4}V{bottom}" stroke="#888" stroke-width="{1 if octave == 0 else 0.3}"/>')
            parts.append(f'<text x="{at - 6}" y="{bottom + 10}">{2.0**octave:g}</text>')
        tops[place] = bottom + 40
    size = f'width="{across * width}" height="{max(tops)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="10">{"".join(parts)}</svg>'
    )


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps({**report, "summary": summary(report)}, indent=1).replace("</", "<\\/")
    page = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8">',
        f"<title>numbaconv on {html.escape(report['device'])}</title>",
        "<h1>Time of cuDNN over numbaconv's (over 1: numbaconv is faster)</h1>" if report["times"] else "",
        picture(report),
        f"<pre>{html.escape(text(report))}</pre>",
        f"{_BEGIN}\n{content}\n{_END}",
        "</html>",
    ]
    path.write_text("\n".join(page) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """What a page was made of."""
    page = path.read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(page[page.index(_BEGIN) + len(_BEGIN) : page.rindex(_END)])
    return found
