"""Optuna's samplers, made anew for every trial so that a suggestion depends on the study alone."""

from __future__ import annotations

import hashlib
import warnings

import optuna
from optuna.samplers import BaseSampler

from metalab.errors import MetalabError
from metalab.spec import Study

__all__ = ["make_sampler"]

_SAMPLERS = ("random", "qmc", "tpe", "cmaes", "nsga2")
_POPULATIONS = (8, 50)  # smallest and largest generation of nsga2


def make_sampler(settings: Study, number: int, conditional: bool = False) -> BaseSampler:
    """The sampler for point ``number``.

    A sampler of a fixed seed would repeat its first suggestions after a restart: its seed is made of the
    study's and the point's number together.

    Args:
        settings: sampler, seed, batch and pruner are read.
        number: of the point in its sweep.
        conditional: whether points of the space differ in their keys.

    Raises:
        MetalabError: the sampler is not known.
    """
    digest = hashlib.sha256(f"{settings.seed}:{number}".encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match settings.sampler:
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
            case "qmc":
                return _qmc(settings.seed, seed)
            case "tpe":
                if conditional:  # keys that are set together are modelled together
                    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
                return optuna.samplers.TPESampler(seed=seed)
            case "cmaes":
                return _cmaes(settings, seed)
            case "nsga2":
                smallest, largest = _POPULATIONS
                population = min(max(settings.batch or largest, smallest), largest)
                return optuna.samplers.NSGAIISampler(population_size=population, seed=seed)
    raise MetalabError(f"study.sampler: got {settings.sampler!r}, expected one of {', '.join(_SAMPLERS)}")


def _qmc(study_seed: int, seed: int) -> BaseSampler:
    """Counts its points in the study itself: with another seed it would be another sequence."""
    first = optuna.samplers.RandomSampler(seed=seed)  # the first point is not part of the sequence
    return optuna.samplers.QMCSampler(
        seed=study_seed, scramble=True, independent_sampler=first, warn_independent_sampling=False
    )


def _cmaes(settings: Study, seed: int) -> BaseSampler:
    """Pruned points count for a generation; hyperband's, of very different ages, would mislead it."""
    return optuna.samplers.CmaEsSampler(
        seed=seed,
        warn_independent_sampling=False,
        independent_sampler=optuna.samplers.RandomSampler(seed=seed),
        consider_pruned_trials=settings.pruner.kind not in ("none", "hyperband"),
    )
