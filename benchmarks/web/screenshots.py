"""Pictures of every page, in docs/images: the demo's loop is walked, its pages are served, a browser looks at them."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
TASK = "northlane-inbox"
SHOTS = (  # name, path, width, height, colours
    ("overview", "", 1280, 720, "light"),
    ("run", f"/{TASK}/run", 1280, 900, "light"),
    ("evaluation", f"/{TASK}/evaluation", 1280, 900, "light"),
    ("gate", f"/{TASK}/gate", 1280, 800, "light"),
    ("rollout", f"/{TASK}/rollout", 1280, 800, "light"),
    ("monitoring", f"/{TASK}/watch", 1280, 900, "light"),
    ("review", f"/{TASK}/review", 1280, 800, "light"),
    ("traffic", f"/{TASK}/traffic", 1280, 800, "light"),
    ("evaluation-dark", f"/{TASK}/evaluation", 1280, 800, "dark"),
    ("overview-phone", "", 390, 780, "light"),
    ("review-phone", f"/{TASK}/review", 390, 780, "dark"),
)


def walk(folder: Path) -> Path:
    """The demo's loop in a fresh folder; a minute or two."""
    subprocess.run([sys.executable, "-m", "overproof.cli", "demo", "--loop", str(folder)], check=True)
    return folder


def shoot(url: str, into: Path, only: str) -> list[Path]:
    """One picture for each line of `SHOTS`."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    made = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, path, width, height, scheme in SHOTS:
            if only not in name:
                continue
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type] # one of two words
            page = context.new_page()
            answer = page.goto(f"{url}{path}")
            if answer is None or answer.status != 200:
                raise SystemExit(f"{path or '/'} answered {answer.status if answer else 'nothing'}")
            page.wait_for_timeout(500)
            page.screenshot(path=into / f"{name}.png")
            made.append(into / f"{name}.png")
            context.close()
        browser.close()
    return made


def main() -> None:
    """Serve, look, say what was made."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--project", type=Path, help="a project of the demo's loop that is there already")
    options.add_argument("--into", type=Path, default=ROOT / "docs" / "images")
    options.add_argument("--only", default="", help="part of a picture's name")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.project or walk(Path(scratch) / "inbox")
        server = subprocess.Popen([sys.executable, "-m", "overproof.cli", "web", "--project", str(folder), "--port", "0"], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            given.into.mkdir(parents=True, exist_ok=True)
            for path in shoot(line.split("listening on ")[1].strip(), given.into, given.only):
                print(f"{path.name}: {path.stat().st_size:,} bytes")
        finally:
            server.terminate()
            server.wait(timeout=30)


if __name__ == "__main__":
    main()
