"""``edgecls tune``."""

from __future__ import annotations

from typing import Any

import click

from edgecls.cli.common import cli_command, overrides, table
from edgecls.cli.completers import complete_recipe
from edgecls.console import Console

_SHOWN = 5  # trials of the table


@cli_command(
    "edgecls tune mv3_ssld --trials 30",
    "edgecls tune mv3_ssld --space 'train.optimizer.lr={low: 0.001, high: 0.01, log: true}'"
    " --space 'augment.mixup=[null, {alpha: 0.2}]'",
    "edgecls tune recipe.yaml --space space.yaml --search grid --storage postgresql://me@host/tune",
)
@click.argument("recipe", type=click.Path(), shell_complete=complete_recipe)
@overrides
@click.option(
    "--space",
    "spaces",
    multiple=True,
    metavar="FILE|KEY=SPEC",
    help="What to search: a YAML file, or a key with a list of values or a range; can be repeated. Without it learning"
    " rate, L2, label smoothing and mixup.",
)
@click.option(
    "--search",
    type=click.Choice(["bayes", "grid"]),
    default="bayes",
    show_default=True,
    help="Learn from the trials before where to look, or try all combinations.",
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    help="Trials that the study is to have, all processes together.  [default: 20, or the whole grid]",
)
@click.option(
    "--storage",
    metavar="URL",
    help="Storage that processes on many computers share, as SQLAlchemy writes it.  [default: an SQLite file in"
    " runs/NAME/tune/]",
)
@click.option(
    "--study", default="main", show_default=True, metavar="NAME", help="Begin this study, or go on with it."
)
@click.option(
    "--pruner",
    type=click.Choice(["median", "hyperband", "none"]),
    default="median",
    show_default=True,
    help="How trials that are behind the others end early.",
)
def command(
    console: Console,
    recipe: str,
    overrides: tuple[str, ...],
    spaces: tuple[str, ...],
    search: str,
    trials: int | None,
    storage: str | None,
    study: str,
    pruner: str,
) -> None:
    """Search for values of RECIPE's keys with which the float network is better on the validation images.

    The same command goes on with a search that was interrupted; a second one beside it joins in. At the end there are
    a page and the best recipe, ready for edgecls train.
    """
    from edgecls.recipe import load_recipe
    from edgecls.search import require_optuna
    from edgecls.search.best import Origin
    from edgecls.search.space import default_space, read_space

    resolved = load_recipe(recipe, overrides)
    space = read_space(spaces) if spaces else default_space(resolved)
    require_optuna()
    from edgecls import workflow

    result = workflow.tune(
        resolved,
        console,
        space,
        Origin(recipe, overrides),
        search=search,
        trials=trials,
        storage=storage,
        name=study,
        pruner=pruner,
    )
    console.emit(result, _show)


def _show(result: dict[str, Any]) -> str:
    from edgecls.report.tune import states, value_text

    best = sorted(
        (row for row in result["trials"] if row["score"] is not None), key=lambda row: -row["score"]
    )
    rows = [
        (
            row["number"],
            f"{100 * row['score']:.2f}",
            *(value_text(row["values"][key]) for key in result["space"]),
        )
        for row in best[:_SHOWN]
    ]
    lines = [f"{len(result['trials'])} trials: {states(result['trials'])}"]
    if rows:
        lines += [table(("trial", "score, %", *result["space"]), rows, left=0)]
    lines.append(f"page: {result['report']}")
    if result["best"]:
        lines.append(f"best recipe: edgecls train {result['best_recipe']}")
    return "\n".join(lines)
