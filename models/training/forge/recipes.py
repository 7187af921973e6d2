"""The table of recipes by name."""

from importlib.util import find_spec
from typing import Final

from clipwarden.models.training.forge.neural_voice import NEURAL_VOICE
from clipwarden.models.training.forge.reanimate import REANIMATION
from clipwarden.models.training.forge.recipe import NotForgeable, Recipe
from clipwarden.models.training.forge.reconstruction import AUTOENCODER, COMPONENTS, UPSAMPLER
from clipwarden.models.training.forge.swap import FACE_SWAP, SELF_BLENDING
from clipwarden.models.training.forge.timing import DROP, DUPLICATE, FREEZE
from clipwarden.models.training.forge.togetherness import FOREIGN_SPEECH, TIME_SHIFT
from clipwarden.models.training.forge.voices import SPLICE, VOICES

_GRIFFIN_LIM: Final = VOICES[0]
PUPPET: Final = Recipe(
    name="puppet",
    version=1,
    summary="reanimation with a griffin_lim voice: every modality is fake, the most there is to see and hear",
    fakes=REANIMATION.fakes | _GRIFFIN_LIM.fakes,
    needs=REANIMATION.needs | _GRIFFIN_LIM.needs,
    draw=lambda rng: REANIMATION.draw(rng) | _GRIFFIN_LIM.draw(rng),
    look=REANIMATION.look,
    listen=_GRIFFIN_LIM.listen,
)
UNTOUCHED: Final = Recipe(
    name="untouched",
    version=1,
    summary="nothing: read and written like the others, for the real side of a comparison",
    fakes=frozenset(),
    needs=frozenset(),
    draw=lambda _: {},
)
RECIPES: Final[dict[str, Recipe]] = {
    recipe.name: recipe
    for recipe in (
        PUPPET,
        REANIMATION,
        FACE_SWAP,
        SELF_BLENDING,
        AUTOENCODER,
        COMPONENTS,
        UPSAMPLER,
        FREEZE,
        DROP,
        DUPLICATE,
        *VOICES,
        NEURAL_VOICE,
        SPLICE,
        TIME_SHIFT,
        FOREIGN_SPEECH,
        UNTOUCHED,
    )
}


def recipe_of(name: str) -> Recipe:
    """Raises NotForgeable for an unknown name and for a recipe whose package is not installed."""
    if name not in RECIPES:
        raise NotForgeable(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    if not installed(RECIPES[name]):
        raise NotForgeable(f"{name} needs the Python package {wheel_of(RECIPES[name])!r}; install it")
    return RECIPES[name]


def wheel_of(recipe: Recipe) -> str | None:
    """What to install for its optional package, if it needs one."""
    return recipe.wheel or recipe.package


def installed(recipe: Recipe) -> bool:
    """Whether its optional package is there."""
    return recipe.package is None or find_spec(recipe.package) is not None
