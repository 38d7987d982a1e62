"""What a container does before its server starts: it writes the server's configuration from its environment."""

from __future__ import annotations

from drd.scratch.recipes.recipe import Place, Recipe


def prologue(place: Place, recipe: Recipe) -> tuple[str, dict[str, str]]:
    """Return the script that writes the files and becomes its arguments, and the variables that the files come by."""
    steps, variables = ["umask 077", f"mkdir -p {place.data}"], {}
    for number, (file, text) in enumerate(recipe.files(place).items()):
        variables[f"DRD_FILE_{number}"] = text
        steps += [f'printf %s "$DRD_FILE_{number}" > {place.folder / file}', f"unset DRD_FILE_{number}"]
    return " && ".join([*steps, 'exec "$@"']), variables
