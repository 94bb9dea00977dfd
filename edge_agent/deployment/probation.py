"""The probation of a newly installed model: proven after its first images, left for the model before where it fails on this box."""

from __future__ import annotations

import logging

from edge_agent.config import Config
from edge_agent.deployment.model_store import ModelStore
from edge_agent.records import ModelIdentity

_log = logging.getLogger(__name__)

PROVEN_AFTER = 20
"""An installed model counts as proven after this many images without an inference error."""


class ModelProbation:
    """Watches the installed model of one home folder over the sessions of an agent. A model that the configuration names is left alone.

    Parameters
    ----------
    store : ModelStore
        The installed models.
    config : Config
        What the last process ran with, as far as is known: :meth:`roll_back` may be called before the first session.
    """

    def __init__(self, store: ModelStore, config: Config) -> None:
        self._store = store
        self.begin_session(config)
        self._model: ModelIdentity | None = None
        self._images = 0

    def begin_session(self, config: Config) -> None:
        """Note which configuration the next session loads its model by. Call it before the model is loaded."""
        self._stamp = self._store.stamp()
        self._is_installed = config.model.bundle is None

    def started(self, model: ModelIdentity) -> None:
        """Note which model the session has loaded; another one than before is counted from zero."""
        if self._model != model:
            self._model, self._images = model, 0

    def is_replaced(self) -> bool:
        """Tell whether another model was activated since the session began."""
        return self._is_installed and self._store.stamp() != self._stamp

    def count(self, model: ModelIdentity) -> None:
        """Count an image that was classified and whose record is durable; note that the model is proven where it is time.

        Raises
        ------
        ModelError, StorageError
            If the note cannot be written.
        """
        self._images += 1
        if self._images != PROVEN_AFTER or not self._is_installed:
            return
        active = self._store.active()
        if active is not None and active.digest == model.digest and not active.proven:
            self._store.prove(model.digest)
            self._stamp = self._store.stamp()
            _log.info("model_proven model=%s version=%s images=%d", model.name, model.version, PROVEN_AFTER)

    def roll_back(self, why: str) -> str | None:
        """Activate the model before; the model that runs must not be proven yet.

        Returns
        -------
        str or None
            What happened, for people; None where the model stays.

        Raises
        ------
        ModelError
            If there is nothing to go back to.
        StorageError
            If the store cannot be read or written.
        """
        active = self._store.active() if self._is_installed else None
        if active is None or active.proven:
            return None
        before = self._store.rollback(why)
        name = f"{before.name} {before.version}" if before else "the model that came with the program"
        _log.error("model_rolled_back model=%s version=%s reason=%s", active.name, active.version, why)
        return f"The new model {active.name} {active.version} failed on this box, so the agent went back to {name}. It said: {why}"
