"""Have the image that a scratch server runs from: named, here, or pulled."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from drd.cancel import CancelToken
from drd.errors import ScratchError
from drd.model import EngineKind, ScratchSpec
from drd.scratch.docker_engine import Client, mapped
from drd.scratch.recipes.recipe import Recipe, numbers

Image = Any


def image_name(recipe: Recipe, spec: ScratchSpec, overrides: Mapping[EngineKind, str]) -> str:
    """Return the name: the spec's, else the configured one, else the official one, of the release that is wanted."""
    return (spec.image or overrides.get(spec.engine, recipe.image)).replace(
        "{release}", recipe.release(numbers(spec.version))
    )


def have_image(client: Client, name: str, *, pull: bool, cancel: CancelToken) -> Image:
    """Return the image, pulled when it is absent and that is allowed; raises ScratchError that says why it cannot."""
    import docker.errors

    hint = f"docker pull {name}, or name another image"
    with mapped(f"look for the image {name}", hint):
        try:
            return client.images.get(name)
        except docker.errors.ImageNotFound:
            if not pull:
                raise ScratchError(f"the image {name} is not here, and pulling is off", hint=hint) from None
    _pull(client, name, hint, cancel)
    with mapped(f"look for the image {name}", hint):
        return client.images.get(name)


def _pull(client: Client, name: str, hint: str, cancel: CancelToken) -> None:
    """Pull in a thread of its own: a registry that never answers keeps the engine waiting, and nobody else."""
    failed: list[ScratchError] = []

    def pull() -> None:
        try:
            with mapped(f"pull the image {name}", hint):
                for step in client.api.pull(name, tag=None if "@" in name else _tag(name), stream=True, decode=True):
                    if cancel.cancelled:
                        return
                    if "error" in step:
                        failed.append(ScratchError(f"cannot pull the image {name}: {step['error']}", hint=hint))
                        return
        except ScratchError as error:
            failed.append(error)

    thread = threading.Thread(target=pull, name=f"pull {name}", daemon=True)
    thread.start()
    while thread.is_alive():
        cancel.raise_if_cancelled()
        thread.join(0.05)
    if failed:
        raise failed[0]


def _tag(name: str) -> str | None:
    """Return "latest" for a name without a tag: the SDK would otherwise pull every tag there is."""
    return None if ":" in name.rpartition("/")[2] else "latest"


def data_folder(image: Image, name: str) -> str:
    """Return the folder that the image declares as a volume; raises ScratchError when there is none."""
    declared = sorted(image.attrs["Config"].get("Volumes") or {})
    if not declared:
        raise ScratchError(
            f"the image {name} declares no volume for its data",
            hint="use an official image, or one that is made FROM it",
        )
    return str(declared[0])


def program_and_user(image: Image, recipe: Recipe) -> tuple[str, str]:
    """Return the server program that the image is for, and the user it is meant to run as."""
    config = image.attrs["Config"]
    named = {word.rpartition("/")[2] for word in [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]}
    program = next((program for program in recipe.programs if program in named), recipe.programs[0])
    user = next((user for user in recipe.users if program.startswith(user)), recipe.users[0])
    return program, config.get("User") or user
