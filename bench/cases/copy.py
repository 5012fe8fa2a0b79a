"""What `copier copy` takes: the time until a person sees the first file.

The limit is in CPU seconds of the machine that it was set on. A slower one is told by the import of
Copier, half of every copy and not ours: there the ratio to it counts, in seconds of that machine.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import project
from bench.harness import Case, Limit, Measures, Result, Round, interleave, paired_ratio

BASE_SECONDS = 0.6
PER_FILE_SECONDS = 0.008
REFERENCE_IMPORT_SECONDS = 0.465


def compared(rounds: list[Round]) -> float:
    """CPU seconds of a copy: the least of the rounds, or less where the machine is slower."""
    least = min(each["copy"]["cpu"] for each in rounds)
    return min(least, REFERENCE_IMPORT_SECONDS * paired_ratio(rounds, "copy", "import", "cpu"))


def run(rounds: int, full: bool) -> Result:
    with TemporaryDirectory() as folder:
        template = project.export(Path(folder) / "template")
        service = Path(folder) / "service"

        def copied() -> Measures:
            shutil.rmtree(service, ignore_errors=True)
            return {"cpu": project.copy(template, service).cpu}

        def imported() -> Measures:
            return {"cpu": project.import_copier().cpu}

        copied()  # writes Copier's bytecode where it is missing
        emitted = len(project.files(service))
        found = interleave({"import": imported, "copy": copied}, rounds)
    return Result(
        unit={"cpu": "s"},
        rounds=found,
        ratio={"copy / import": paired_ratio(found, "copy", "import", "cpu")},
        limits={"cpu": Limit("ceiling", BASE_SECONDS + PER_FILE_SECONDS * emitted, compared(found))},
        notes={
            "emitted files": emitted,
            "compared": "least of the rounds, or the ratio times the import on the machine of the limit",
            "import on that machine": REFERENCE_IMPORT_SECONDS,
        },
    )


CASE = Case(
    name="copy",
    limit=f"CPU of a copy: at most {BASE_SECONDS} s and {PER_FILE_SECONDS * 1000:g} ms per file",
    run=run,
)
