"""Hooks of mkdocs: generated text where pages have markers, and pictures that lie outside this folder."""

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import generated

_PICTURES = generated.ROOT / "perf" / "results"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Markers are replaced; pictures are where `on_files` puts them, and not where they are in the repository."""
    return generated.expanded(markdown).replace("](../perf/results/", "](pictures/")


def on_files(files: Files, config: Any) -> Files:
    """The site has the pictures of measurements and of the README."""
    for picture in sorted(_PICTURES.glob("*.png")):
        files.append(File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture)))
    return files
