"""`vlbench data`: make the world, check data, make region features."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make, check and describe data.", no_args_is_help=True, rich_markup_mode=None)
