"""``hvx config``: what a config says with all defaults, and the schema of its keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvx.cli.common import PATH, common, config_argument, json_option, print_json, set_option
from hvx.terminal import echo, echo_lines, printed_as_is

if TYPE_CHECKING:
    from hvx.config import Config


@click.group("config")
def config() -> None:
    """Show a config with all defaults, or describe its keys to an editor.

    \b
    Example:
      hvx config show configs/daquar.yaml
      hvx config schema -o hvx.schema.json
    """


@config.command("show")
@config_argument
@set_option
@json_option
@common
def show(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print every key of CONFIG with its value: as given, as overridden, or the default.

    The output is YAML that hvx reads as the same config. Paths stay as given. docs/config.md describes the
    keys.

    \b
    Example:
      hvx config show configs/daquar.yaml
      hvx config show configs/scenes.yaml --set model.form=vqa-pytorch
      hvx config show configs/daquar.yaml --json
    """
    from hvx.config import load

    loaded = load(config, list(overrides))
    if as_json:
        print_json(loaded.model_dump(mode="json"))
    else:
        echo_lines(_as_yaml(loaded).rstrip("\n"))


def _as_yaml(loaded: Config) -> str:
    """The config as YAML, with YAML's escapes instead of the terminal's."""
    from hvx.strict_yaml import write_yaml

    tree = loaded.model_dump(mode="json")
    text = write_yaml(tree)
    return text if printed_as_is(text) else write_yaml(tree, unicode=False)


@config.command("schema")
@click.option(
    "-o", "--output", type=PATH, metavar="FILE.json",
    help="Write the schema into this file; without, it is printed.",
)  # fmt: skip
@common
def schema(output: Path | None) -> None:
    """Print a JSON Schema of config files: every key with its type, limits, default and meaning.

    With it, an editor completes keys, shows what they mean, and marks wrong ones. For the YAML language
    server, which VS Code and other editors use, name the file in a config's first line:

    \b
      # yaml-language-server: $schema=hvx.schema.json

    \b
    Example:
      hvx config schema -o hvx.schema.json
    """
    from hvx.config_schema import config_schema

    if output is None:
        print_json(config_schema())
        return
    from hvx.files import write_json

    write_json(output, config_schema(), indent=1)
    echo(f"{output}: JSON Schema of config files")
