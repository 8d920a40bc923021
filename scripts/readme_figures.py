"""Write a run's figures into README.md, between its two markers, so that none is typed by hand.

Usage: python scripts/readme_figures.py [RUN]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import marked
from near_copies import scores_of

from edgecls.run import Run

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- figures: scripts/readme_figures.py -->", "<!-- end of figures -->"
MODELS = {"teacher": "teacher", "float": "float student", "qat": "QAT student", "int8": "int8 .tflite"}


def main() -> None:
    run = Run.find(sys.argv[1] if len(sys.argv) > 1 else None)
    alone = scores_of(run)["scores"]
    marked.rewrite(README, BEGIN, END, figures(run, alone))


def figures(run: Run, alone: dict[str, dict[str, Any]]) -> str:
    """Markdown of what one run measured.

    Args:
        run: The run.
        alone: What ``near_copies.scores`` gives: the scores without test photographs that resemble a training one.
    """

    def read(name: str) -> Any:
        return json.loads(run.file(name).read_text(encoding="utf-8"))

    ladder = read("verify.json")
    seconds = ", ".join(f"{stage} {stamp['seconds']:.0f} s" for stage, stamp in run.stamps().items())
    parts = [
        accuracy_table(read("eval.json")["models"], alone),
        latency_table(read("bench.json")["results"]),
        [file_check(ladder)],
        [f"Stages: {seconds}. Measured on {computer(read('env.json'))}."],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts)


def accuracy_table(scores: dict[str, dict[str, Any]], alone: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each network: shares of the labeled test photographs, from 0 to 1."""
    found = {model: alone[model] for model in MODELS if model in scores and model in alone}
    few, all_of_them = (next(iter(found.values()))[name]["images"] for name in ("without near-copies", "all"))
    lines = [
        f"| network | balanced accuracy, {few} photographs | 95 % interval | top-1 | all {all_of_them} | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for model, groups in found.items():
        cells = [MODELS[model]]
        for row in (groups["without near-copies"], scores[model]):
            low, high = row["balanced_accuracy_ci95"]
            cells += [f"{row['balanced_accuracy']:.3f}", f"{low:.3f} - {high:.3f}"]
        cells.insert(3, f"{groups['without near-copies']['top1']:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def latency_table(results: list[dict[str, Any]]) -> list[str]:
    """A line for each file and number of threads; MB is 10^6 bytes and MiB 2^20."""
    lines = [
        "| file | threads | median latency ms | 95 % interval ms | file size MB | peak memory MiB | status |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results:
        interval = "{:.2f} - {:.2f}".format(*row["ci95_ms"]) if row["ci95_ms"] else "-"
        memory = "-" if row["peak_mib"] is None else f"{row['peak_mib']:.1f}"
        lines.append(
            f"| {row['model']} | {row['threads']} | {row['median_ms']:.2f} | {interval} "
            f"| {row['bytes'] / 1e6:.2f} | {memory} | {row['status']} |"
        )
    return lines


def file_check(ladder: dict[str, Any]) -> str:
    """What ``edgecls verify`` found about the int8 file."""
    int8 = ladder["files"]["model_int8.tflite"]
    steps = next(rung["max_steps"] for rung in ladder["rungs"] if "max_steps" in rung)
    return (
        f"int8 file / fp32 file: {ladder['size_ratio']:.3f}. int8 against its QAT network on {ladder['images']} "
        f"photographs: at most {steps:g} quantization steps apart. XNNPACK partitions: {int8['partitions']}; "
        f"float operations left: {len(int8['float_ops'])}."
    )


def computer(env: dict[str, Any]) -> str:
    """The kind of computer, and whether its processor has instructions for int8: latencies depend on them."""
    kind = f"{env['cpu']}, {env['cores']} cores, no GPU"
    if "int8_instructions" not in env:  # a run of an older version
        return kind
    return f"{kind}, {env['int8_instructions'] or 'no int8 instructions (AVX-512 VNNI)'}"


if __name__ == "__main__":
    main()
