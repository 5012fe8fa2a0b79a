"""What `copier copy` takes: the time until a person sees the first file."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import project
from bench.harness import Case, Limit, Measures, Result, interleave, paired_ratio

BASE_SECONDS = 0.6
PER_FILE_SECONDS = 0.008


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
    least = min(each["copy"]["cpu"] for each in found)
    return Result(
        unit={"cpu": "s"},
        rounds=found,
        ratio={"copy / import": paired_ratio(found, "copy", "import", "cpu")},
        limits={"cpu": Limit("ceiling", BASE_SECONDS + PER_FILE_SECONDS * emitted, least)},
        notes={
            "emitted files": emitted,
            "compared": "the least of the rounds: other work only ever adds to it",
        },
    )


CASE = Case(
    name="copy",
    limit=f"CPU of a copy: at most {BASE_SECONDS} s and {PER_FILE_SECONDS * 1000:g} ms per file",
    run=run,
)
