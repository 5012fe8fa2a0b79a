"""Runs the cases, prints a table and writes one file per case into `bench/results/`.

Exit codes: 0 every limit holds, 1 one is broken, 2 usage, or a case could not be measured.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cases import find
from bench.harness import LEAST_ROUNDS, BenchError, Case, Result, as_json, medians

RESULTS = Path(__file__).parent / "results"


def table(case: Case, result: Result) -> str:
    lines = [f"{case.name}: {case.limit}"]
    for subject, measures in medians(result.rounds).items():
        figures = "  ".join(f"{name} {value:.4g} {result.unit[name]}" for name, value in measures.items())
        lines.append(f"  {subject:12} {figures}")
    lines += [f"  ratio      {name} {value:.3g}" for name, value in result.ratio.items()]
    for name, limit in result.limits.items():
        figures = f"{limit.measured:.3g}, {limit.kind} {limit.bound:.3g}"
        lines.append(f"  {limit.verdict:10} {name} {figures} (broken at {limit.breaks_at:.3g})")
    return "\n".join(lines)


def run(cases: Sequence[Case], rounds: int, full: bool, folder: Path) -> int:
    """Run the cases in turn. 2, "could not look", wins over 1, "looked and found it broken"."""
    code = 0
    for case in cases:
        try:
            result = case.run(rounds, full)
        except BenchError as error:
            print(f"{case.name}: {error}", file=sys.stderr)
            code = 2
            continue
        found = as_json(case, result)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{case.name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(table(case, result), flush=True)
        code = max(code, int(not result.passed))
    return code


def main(arguments: Sequence[str] | None = None, cases: Mapping[str, Case] | None = None) -> int:
    known = find() if cases is None else cases
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("case", nargs="*", help="only these cases")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="at least 5")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.case if name not in known]
    if unknown:
        print(f"no case {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(f"{case.name:12} {case.limit}" for case in known.values()))
        return 0
    chosen = [known[name] for name in options.case or known]
    full = os.environ.get("PROOF") == "full"
    return run(chosen, options.rounds, full, options.results)


if __name__ == "__main__":
    sys.exit(main())
