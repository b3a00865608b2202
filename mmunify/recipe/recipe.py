"""The recipe: load, check, build."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmunify.composer import compose
from mmunify.errors import RecipeError, UserError
from mmunify.faults import Fault, unknown
from mmunify.model import UnifiedModel
from mmunify.parts import Expert
from mmunify.paths import resolve_paths
from mmunify.recipe import checks
from mmunify.recipe.fields import Ablation, ModelNodes, RecipeFields, Stage, typed
from mmunify.recipe.files import find_recipe, import_modules, read_chain
from mmunify.recipe.merging import Merger, override_tree, without_deleted
from mmunify.recipe.options import apply_options, describe_options
from mmunify.recipe.wiring import media_kinds
from mmunify.registry import EXPERTS
from mmunify.tokens import TokenRegistry


@dataclass(kw_only=True)
class Recipe(RecipeFields):
    """What a model is made of, what it learns and when.

    Attributes:
        notes: what loading did that its reader should know (arguments that a swapped part doesn't take).
        found: faults that loading found; what they concern has its default value here.
    """

    notes: list[str] = field(default_factory=list, repr=False, compare=False)
    found: list[Fault] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, name: str = "recipe", allow_imports: bool = True) -> "Recipe":
        """A recipe from a plain tree, as `to_dict` gives it.

        Args:
            name: used where the tree has none.
            allow_imports: False for trees from elsewhere: their `imports:` would run code.

        Raises:
            RecipeError: the tree has `imports` and they aren't allowed.
        """
        if data.get("imports") and not allow_imports:
            message = f"would run the code of {', '.join(map(str, data['imports']))}; allow it if you trust its author"
            raise RecipeError([Fault("imports", message)])
        return _make([dict(data)], Path.cwd(), name)

    def check(self, training: bool = True) -> list[Fault]:
        """Every fault at once, each with its path; no weight is loaded, nothing is asked of the network.

        Args:
            training: whether stages, their data and the trainer matter; a trained model is used without them.
        """
        tree, known = self.to_dict(), {fault.path for fault in self.found}
        faults = [
            *typed(RecipeFields, tree)[1],
            *checks.model_faults(self.model),
            *([*self._training_faults(), *self._arm_faults()] if training else []),
            *checks.expert_faults(self.experts),
            *checks.token_faults(self, media_kinds(self.model)),
            *(fault for key in ("model", "experts") for fault in checks.path_faults(tree[key], key)),
        ]
        return list(dict.fromkeys([*self.found, *(fault for fault in faults if fault.path not in known)]))

    def validate(self, training: bool = True) -> None:
        """Raise all faults together; `training` as in `check`.

        Raises:
            RecipeError: there are some.
        """
        if faults := self.check(training):
            raise RecipeError(faults)

    def remarks(self) -> list[str]:
        """What is no fault but worth knowing: the notes of loading, chosen options, tasks without an expert."""
        return [*self.notes, *describe_options(self.options), *checks.expert_notes(self)]

    def build(self, training: bool = True) -> UnifiedModel:
        """The model with its weights; random ones depend on `seed` alone.

        Args:
            training: False to use a trained model where its data sets don't exist, see `check`.

        Raises:
            RecipeError: the recipe has faults.
        """
        self.validate(training)
        return compose(**resolve_paths(asdict(self.model)), tokens=self.build_tokens(), seed=self.seed)

    def build_tokens(self) -> TokenRegistry:
        """The token registry that tokenizer, data, parser and router share."""
        kinds = media_kinds(self.model)
        return TokenRegistry(self.tokens.tasks, self.tokens.grounding, kinds, bins=self.tokens.bins)

    def build_experts(self) -> dict[str, Expert]:
        """Task -> expert.

        Raises:
            RecipeError: a node has faults.
        """
        return {task: EXPERTS.build(resolve_paths(node)) for task, node in self.experts.items()}

    def at(self, stage: str | int | Stage) -> "Recipe":
        """The recipe with the model and the loss weights that a stage has.

        Raises:
            UserError: no stage of that name or number.
        """
        chosen = stage if isinstance(stage, Stage) else self._stage(stage)
        model, notes, faults = _stage_model(self.model, chosen)
        model.weights.update(chosen.weights)
        return replace(self, model=model, notes=[*self.notes, *notes], found=[*self.found, *faults])

    def arm(self, name: str) -> "Recipe":
        """The recipe as an arm of its ablation changes it.

        Raises:
            UserError: no arm of that name.
        """
        if name not in self.ablate.arms:
            raise UserError(unknown("arm", name, list(self.ablate.arms)))
        tree = {key: value for key, value in self.to_dict().items() if key != "ablate"}
        return _make([tree, self.ablate.arms[name]], Path.cwd(), self.name)

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as a plain tree, defaults included."""
        return {entry.name: _plain(getattr(self, entry.name)) for entry in fields(RecipeFields)}

    def save(self, path: str | Path) -> Path:
        """Write the resolved recipe as YAML."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(OmegaConf.to_yaml(OmegaConf.create(self.to_dict())), encoding="utf-8")
        return file

    def _stage(self, stage: str | int) -> Stage:
        for index, each in enumerate(self.stages):
            if stage in (index, each.name):
                return each
        raise UserError(f"no stage {stage!r} in recipe {self.name!r}; it has {[each.name for each in self.stages]}")

    def _training_faults(self) -> list[Fault]:
        return [
            *(fault for index, stage in enumerate(self.stages) for fault in self._stage_model_faults(index, stage)),
            *checks.stage_faults(self.stages),
            *checks.trainer_faults(self.trainer),
            *checks.cache_faults(self.cache),
            *checks.path_faults(_plain(self.stages), "stages"),
        ]

    def _arm_faults(self) -> list[Fault]:
        """Faults of the ablation, and those of its arms that the recipe itself doesn't have."""
        faults = checks.ablation_faults(self.ablate, [stage.name for stage in self.stages])
        known = set(replace(self, ablate=Ablation()).check()) if self.ablate.arms else set()
        for name in self.ablate.arms:
            found = [fault for fault in self.arm(name).check() if fault not in known]
            faults += [Fault(f"ablate.arms.{name}.{fault.path}", fault.message) for fault in found]
        return faults

    def _stage_model_faults(self, index: int, stage: Stage) -> list[Fault]:
        """Faults of a stage's own model and weights; those of the recipe's model are reported once, there."""
        path = f"stages.{index}"
        model, _, merging = _stage_model(self.model, stage)
        faults = [Fault(f"{path}.{fault.path}", fault.message) for fault in merging]
        if stage.model:
            known = {(fault.path, fault.message) for fault in checks.model_faults(self.model, f"{path}.model")}
            found = checks.model_faults(model, f"{path}.model")
            faults += [fault for fault in found if (fault.path, fault.message) not in known]
        return [
            *faults,
            *checks.weight_faults(stage.weights, model, f"{path}.weights"),
            *checks.row_faults(stage, model, path),
        ]


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, its `base:` parents and the modules that it imports.

    Faults of what it says are not raised here: `Recipe.check` reports all of them, `Recipe.build` raises them.

    Args:
        path: YAML file, or the name of a recipe that ships with mmunify ("tiny/unifiedmllm").
        overrides: `key=value` texts, applied last: "model.adapters.image.name=qformer", "stages.adapt.steps=10".

    Raises:
        UserError: no such recipe, a file that isn't YAML, an override that isn't key=value.
        RecipeError: a `base:` that is missing or leads in a circle.
    """
    file = find_recipe(path)
    chain = read_chain(file)
    for parent in chain[:-1]:
        parent.pop("name", None)
    changes: dict[str, Any] = {}
    for text in overrides:
        changes = _combine(changes, override_tree(text))
    return _make([*chain, changes], file.parent, file.stem)


def _make(trees: Sequence[Mapping[str, Any]], folder: Path, name: str) -> Recipe:
    merger = Merger()
    data: dict[str, Any] = {}
    layers, options, faults = apply_options(trees, [entry.name for entry in fields(RecipeFields)])
    for tree in layers:
        data = merger.merge(data, tree)
    data |= {"options": options} if options else {}
    modules = data.get("imports")
    found = [*faults, *merger.faults, *import_modules(modules if isinstance(modules, list) else [], folder)]
    data = without_deleted(data)
    notes = merger.drop_inherited(data)
    data, unresolved = _resolved(data)
    clean, wrong = typed(RecipeFields, {**data, "name": data.get("name") or name})
    return Recipe(**vars(_structured(clean)), notes=notes, found=[*found, *unresolved, *wrong])


def _structured(clean: dict[str, Any]) -> RecipeFields:
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RecipeFields), clean))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise RecipeError([Fault(str(error.full_key or ""), str(error).splitlines()[0])]) from error


def _resolved(data: dict[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The tree with its `${...}` filled in."""
    try:
        return OmegaConf.to_container(OmegaConf.create(data), resolve=True), []  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        return _without_interpolations(data), [Fault(str(error.full_key or ""), message)]


def _without_interpolations(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_interpolations(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_interpolations(item) for item in value]
    return value.replace("${", "$ {") if isinstance(value, str) else value


def _stage_model(model: ModelNodes, stage: Stage) -> tuple[ModelNodes, list[str], list[Fault]]:
    """The recipe's model under a stage's overrides, with what was dropped and what is wrong."""
    merger = Merger()
    tree = without_deleted(merger.merge({"model": asdict(model)}, {"model": stage.model}))
    notes = merger.drop_inherited(tree)
    clean, faults = typed(ModelNodes, tree["model"], "model")
    return ModelNodes(**clean), notes, [*merger.faults, *faults]


def _combine(old: Any, new: Any) -> Any:
    """Overrides that name the same mapping, as one tree: applied together, their order doesn't matter."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _combine(old.get(key), value) for key, value in new.items()}}
    return new


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else deepcopy(value)
