"""Build the wheel and try it in an environment that has it and what it needs, and no checkout.

What it needs is taken from the environment that runs this, so that nothing is downloaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMALL = "--classes 10 --batch-size 4 --image-size 8 --trials 3 --proxy params --quiet"
COMMANDS = (
    "--version",
    "list spaces",
    "list recipes",
    f"search --teacher resnet20 --space s0 --data noise {SMALL} --sampler random --out run",
    "report run --quiet",
)


def call(*words: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return what it printed; stop with what went wrong."""
    line = [str(word) for word in words]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(line, cwd=cwd, env=clean, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(line)}: {ran.stdout}{ran.stderr}")
    return ran.stdout


def main() -> None:
    """Build, install, run."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        call(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", place, ROOT)
        (wheel,) = place.glob("diswot-*.whl")
        venv.create(place / "clean", with_pip=False)
        python = place / "clean" / "bin" / "python"
        call(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
        packages = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        needed = Path(packages.strip()) / "needed.pth"
        needed.write_text(sysconfig.get_path("purelib") + "\n")
        home = call(python, "-c", "import diswot; print(diswot.__file__)", cwd=place).strip()
        if not Path(home).is_relative_to(place):
            sys.exit(f"the checkout was imported, not the wheel: {home}")
        if not Path(home).with_name("py.typed").is_file():
            sys.exit("the wheel has no py.typed")
        for command in COMMANDS:
            call(place / "clean" / "bin" / "diswot", *command.split(), cwd=place)
        if not (place / "run" / "report.html").is_file():
            sys.exit("no report was written")
        print(f"{wheel.name} works in a clean environment")


if __name__ == "__main__":
    main()
