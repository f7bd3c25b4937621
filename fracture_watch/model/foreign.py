"""Weights from elsewhere -> weights with a card. What a file does not say is asked for, never guessed."""

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fracture_watch.disk import digest
from fracture_watch.errors import InvalidModel, WrongUse
from fracture_watch.model.card import Card, Input, brief, card_path
from fracture_watch.model.network import Network
from fracture_watch.model.preprocess import Resize
from fracture_watch.model.weights import check_are_numbers, check_is_weights

State: TypeAlias = dict[str, Tensor]

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
_PREFIXES = ("module.", "model.", "net.", "network.", "backbone.", "encoder.", "_orig_mod.")
_CLASSES = ("fractured", "not fractured")
_UNPICKLE_SECONDS = 600
_DEEPEST = 8  # containers within one another


@dataclass(frozen=True, slots=True)
class Foreign:
    """What a file from elsewhere holds: tensors by name, and its classes in the order of its outputs, if it says so."""

    state: State
    classes: tuple[str, ...] | None


def import_weights(
    source: Path,
    output: Path,
    architecture: str,
    classes: str | None,
    resize: Resize,
    version: str,
    trust_pickle: bool = False,
) -> Card:
    """Write ``source`` as a plain ``state_dict`` with two outputs, and its card.

    Parameters
    ----------
    source, output : Path
        ``output`` and its card must not exist.
    architecture : str
        ``timm:NAME``, ``timm:NAME+NAME`` or ``torchvision:NAME``.
    classes : str, optional
        What the outputs stand for, in their order, separated by commas; one name for a net with one output.
    resize : {"stretch", "letterbox"}
        How its training made the input square.
    version : str
        Of the new card.
    trust_pickle : bool
        Let code from the file run, in a process of its own, where it holds more than tensors.

    Raises
    ------
    InvalidModel
        If the file is not the weights of such a network.
    WrongUse
        If it is open what the outputs stand for, ``output`` exists, or a card cannot say what is asked for.
    """
    for path in (output, card_path(output)):
        if path.exists():
            raise WrongUse(f"{path}: exists already; name another --output")
    foreign = read_foreign(source, trust_pickle)
    network = fitted(foreign, source, architecture, _names(classes.split(",")) if classes else None)
    card = _card(source, output, architecture, resize, version)
    network.check_runs(card.input.size)
    try:
        torch.save(network.body.state_dict(), output)
    except (OSError, RuntimeError) as error:
        raise WrongUse(f"{output}: cannot be written: {error}; name a folder that exists and is writable") from error
    card = card.model_copy(update={"sha256": digest(output)})
    card.save(output)
    return card


def _card(source: Path, output: Path, architecture: str, resize: Resize, version: str) -> Card:
    """The card of weights that are not written yet: its ``sha256`` is open."""
    try:
        return Card(
            name=output.stem.replace("_", "-"),
            version=version,
            architecture=architecture,
            input=Input(resize=resize),
            training={"imported_from": source.name, "imported_sha256": digest(source)},
            intended_use="Research. Not a medical device; not for diagnosis.",
            limits=[
                "Imported: nothing is known here of its training data and of its accuracy.",
                "Neither calibrated nor given a threshold on purpose: a probability of 0.5 is where its outputs are "
                "equal.",
            ],
            sha256="0" * 64,
        )
    except ValidationError as error:
        raise WrongUse(f"{output}: its card would not be valid: {brief(error)}") from error


def read_foreign(source: Path, trust_pickle: bool) -> Foreign:
    """Read tensors and class names; code in the file runs only if it is trusted, and not in this process."""
    if not source.is_file():
        raise WrongUse(f"{source}: there is no such file")
    check_is_weights(source)
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if trust_pickle:
            return _unpickled(source)
        raise InvalidModel(
            f"{source}: holds more than tensors, so reading it would run code from the file. Save "
            "model.state_dict() where it was made, or, if you trust whoever made it, add --trust-pickle"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can trip torch's readers anywhere
        raise InvalidModel(f"{source}: is not a file of PyTorch weights: {_first_line(error)}") from error
    return plain(content, str(source))


def plain(content: Any, name: str) -> Foreign:
    """Find the ``state_dict`` in what a file held: a dictionary, a checkpoint around one, or a whole model."""
    classes = _own_classes(content) if isinstance(content, Mapping) else None
    depth = 0
    while not isinstance(content, nn.Module):
        if not isinstance(content, Mapping):
            raise InvalidModel(f"{name}: holds no state_dict but a {type(content).__name__}")
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return Foreign(dict(content), classes)
        inner = next((key for key in _CONTAINERS if isinstance(content.get(key), Mapping | nn.Module)), None)
        depth += 1
        if inner is None or depth > _DEEPEST:  # one may hold itself
            raise InvalidModel(f"{name}: no state_dict is found under its keys {_some(map(str, content))}")
        content = content[inner]
    return Foreign(dict(content.state_dict()), classes)


def fitted(foreign: Foreign, source: Path, architecture: str, told: tuple[str, ...] | None) -> Network:
    """The network of ``architecture`` with the foreign weights, its outputs 0 fractured and 1 not fractured."""
    network = Network(architecture)
    head = network.head_name
    expected = network.body.state_dict()
    state = _renamed(foreign.state, expected, head, source)
    _check_names(state, expected, f"{source}: the weights do not fit {architecture}")
    names = (f"{head}.weight", f"{head}.bias")
    if flat := [name for name in names if state[name].ndim != expected[name].ndim]:
        raise InvalidModel(
            f"{source}: the weights do not fit {architecture}: {flat[0]} is {tuple(state[flat[0]].shape)}"
        )
    fractured = _fractured_output(len(state[names[0]]), foreign.classes, told, source)
    for name in names:
        state[name] = _two_outputs(state[name], fractured)
    wrong = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if state[name].shape != value.shape
    ]
    if wrong:
        raise InvalidModel(f"{source}: the weights do not fit {architecture}: {_some(wrong)}")
    check_are_numbers(state, source)
    network.body.load_state_dict(state, strict=True)
    return network


def _fractured_output(outputs: int, own: tuple[str, ...] | None, told: tuple[str, ...] | None, source: Path) -> int:
    """Which output stands for *fractured*: 0 or 1; for a single one that stands for *not fractured*, 1."""
    if outputs not in (1, 2):
        raise InvalidModel(f"{source}: the network has {outputs} outputs; it must have 2 (or 1), fractured and not")
    if told and own and len(own) == outputs and told != own:
        raise WrongUse(f"--classes says {', '.join(told)}, but {source} says {', '.join(own)}; find out which is right")
    classes = told or own or ()
    orders: list[tuple[str, ...]] = [_CLASSES, _CLASSES[::-1]] if outputs == 2 else [_CLASSES[:1], _CLASSES[1:]]
    if classes not in orders:
        choices = " or ".join(f"--classes '{','.join(names)}'" for names in orders)
        said = f"it is said to be {', '.join(classes)}" if classes else "nothing says it"
        raise WrongUse(
            f"{source}: it must be known what {'each of its 2 outputs' if outputs == 2 else 'its one output'} stands "
            f"for, and {said}. Add {choices}, whichever it was trained with"
        )
    return orders.index(classes)


def _two_outputs(rows: Tensor, fractured: int) -> Tensor:
    """Put the row of *fractured* first; a single row gets a row of zeros beside it, which leaves its logit as it is."""
    both = rows if len(rows) == 2 else torch.cat([rows, torch.zeros_like(rows)])
    return both if fractured == 0 else both.flip(0)


def _renamed(state: State, expected: Iterable[str], head: str, source: Path) -> State:
    """Names as the architecture has them: without wrappers' prefixes, and a head behind a dropout as the head."""
    wanted, renamed = set(expected), State()
    for name, value in state.items():
        own = name
        while own not in wanted and (prefix := next((p for p in _PREFIXES if own.startswith(p)), None)):
            own = own.removeprefix(prefix)
        if own in renamed:
            raise InvalidModel(f"{source}: holds {own} twice, under several prefixes; leave one network in it")
        renamed[own] = value
    behind = {name.rsplit(".", 1)[0] for name in renamed if name.startswith(f"{head}.")} - {head}
    if len(behind) == 1 and f"{head}.weight" not in renamed:  # nn.Sequential(nn.Dropout(), nn.Linear())
        [place] = behind
        renamed = State({name.replace(f"{place}.", f"{head}."): value for name, value in renamed.items()})
    return renamed


def _check_names(state: State, expected: State, what: str) -> None:
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):  # a counter of training that old files do not have
            state.setdefault(name, value)
    missing, unknown = set(expected) - set(state), set(state) - set(expected)
    if missing or unknown:
        parts = [f"missing {_some(sorted(missing))}"] if missing else []
        parts += [f"unknown {_some(sorted(unknown))}"] if unknown else []
        raise InvalidModel(f"{what}: {'; '.join(parts)}. Name the architecture that they were trained with")


def _own_classes(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names in the order of the outputs, where a checkpoint says them in one of the usual ways."""
    index = content.get("class_to_idx")
    if isinstance(index, Mapping) and set(map(type, index.values())) == {int}:
        order = sorted(index, key=lambda name: int(index[name]))
        if [index[name] for name in order] == list(range(len(order))):
            return _names(map(str, order))
    names = content.get("classes") or content.get("class_names")
    return _names(map(str, names)) if isinstance(names, list | tuple) else None


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(" ".join(name.lower().replace("_", " ").replace("-", " ").split()) for name in names)


def _unpickled(source: Path) -> Foreign:
    """Let a process of its own unpickle the file, and read from it nothing but tensors and names."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "state.pth"
        # -P: no module beside the file can pose as one of ours; PYTHONPATH may name the folder of the model's class.
        command = [sys.executable, "-P", "-m", "fracture_watch.model.unpickle", str(source.absolute()), str(target)]
        try:
            done = subprocess.run(  # noqa: S603  our own interpreter and module
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                timeout=_UNPICKLE_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise InvalidModel(f"{source}: unpickling it took more than {_UNPICKLE_SECONDS} s") from error
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise InvalidModel(
                f"{source}: it could not be unpickled: {reason}. A class of the model's own must be importable: name "
                "its folder in PYTHONPATH, or save model.state_dict() where it was made"
            )
        found = torch.load(target, map_location="cpu", weights_only=True)
    return Foreign(found["state"], tuple(found["classes"]) if found["classes"] else None)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _some(names: Iterable[str]) -> str:
    """The first few, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    return ", ".join(listed[:4]) + more
