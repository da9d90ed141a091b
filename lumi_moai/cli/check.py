"""`lumi-moai check`: what is wrong with a batch script."""

import sys
from typing import Any

import click

from .show import json_option, show_json


@click.command()
@click.argument("scripts", nargs=-1, required=True, metavar="SCRIPT...")
@click.option("--site", metavar="SITE", help="Cluster; by default this machine's, else the one that has the partition.")
@json_option
@click.option("--sarif", "as_sarif", is_flag=True, help="Print SARIF 2.1, which code hosts show beside the lines.")
@click.option("--fix", is_flag=True, help="Make the safe changes in the files.")
@click.option("--diff", "as_diff", is_flag=True, help="Show what --fix changes, and change nothing.")
@click.option("--no-notes", is_flag=True, help="Leave notes out: only errors and warnings.")
def check(scripts: tuple[str, ...], site: str | None, **options: bool) -> None:
    """Find mistakes in batch scripts, anybody's: what Slurm refuses, what costs too much, what runs slow or hangs.

    Nothing of a script is run; `-` is standard input. Helper scripts that lie beside it are followed. Exits with 1 when
    there is an error, or a script that cannot be read, and with 0 when there are warnings only.
    """
    from ..gather.scripts import check_file, with_fixes

    as_json, as_sarif, as_diff = (options[name] for name in ("as_json", "as_sarif", "as_diff"))
    if as_json + as_sarif + as_diff > 1:
        raise click.UsageError("--json, --sarif and --diff each print something else; choose one")
    writes = options["fix"] and not as_diff
    if writes and "-" in scripts:
        raise click.UsageError("standard input is no file that --fix could change; --diff shows what it would")
    checked = [check_file(path, site, fix=options["fix"] or as_diff) for path in scripts]
    checked = [with_fixes(one) for one in checked] if writes else checked
    found = [_loud(one, options["no_notes"]) for one in checked]
    if as_json:
        show_json(_objects(checked, found))
    elif as_sarif:
        show_json(_sarif(checked, found))
    else:
        _show(checked, found, as_diff=as_diff)
    for one in checked:
        if one.problem:
            click.echo(f"Error: {one.problem}", err=True)
    broken = any(one.problem for one in checked)
    if broken or any(finding.severity == "error" for many in found for finding in many):
        sys.exit(1)


def _loud(one: Any, no_notes: bool) -> list[Any]:
    return [finding for finding in one.findings if not (no_notes and finding.severity == "note")]


def _objects(checked: list[Any], found: list[list[Any]]) -> dict[str, Any]:
    from ..report.findings import as_dict, counts

    return {
        "scripts": [
            {
                "path": one.path,
                "site": one.site,
                "problem": one.problem,
                "findings": [as_dict(finding) for finding in many],
                "fixed": [as_dict(finding) for finding in one.made],
                "absent_helpers": [absent.path for absent in one.script.absent] if one.script else [],
            }
            for one, many in zip(checked, found, strict=True)
        ],
        **{f"{severity}s": n for severity, n in counts([f for many in found for f in many]).items()},
    }


def _sarif(checked: list[Any], found: list[list[Any]]) -> dict[str, Any]:
    from ..check import RULES
    from ..report.sarif import as_sarif

    results = [(one.path, _text(one), many) for one, many in zip(checked, found, strict=True)]
    return as_sarif(results, RULES, [one.problem for one in checked if one.problem])


def _text(one: Any) -> str:
    """The text that the findings are about: after the fixes, if there were any."""
    return one.fixed_text if one.fixed_text is not None else one.script.text if one.script else ""


def _show(checked: list[Any], found: list[list[Any]], *, as_diff: bool) -> None:
    from ..report.findings import as_text, summary

    for one, many in zip(checked, found, strict=True):
        if one.problem:
            continue
        if as_diff:
            click.echo(_diff(one), nl=False)
            continue
        click.echo(as_text(one.path, _text(one), many, colours=_colours()), nl=False)
        done = f"; {len(one.made)} fixed" if one.made else ""
        click.echo(f"{one.path}: {summary(many)}{done} (site {one.site})")


def _colours() -> bool:
    import os

    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _diff(one: Any) -> str:
    from difflib import unified_diff

    before = one.script.text.splitlines(keepends=True)
    lines = unified_diff(before, _text(one).splitlines(keepends=True), one.path, f"{one.path} (fixed)")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
