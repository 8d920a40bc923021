"""Classifying for many clients at once: a bounded number of threads, a bounded queue, a model that can be exchanged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from edgecls.errors import EdgeclsError
from edgecls.infer.bodies import Limits, Refusal, Upload, uploads
from edgecls.infer.classifier import Classifier
from edgecls.infer.counters import Counters
from edgecls.metrics import softmax
from edgecls.text import first_line

RETRY_S = 1

Models = Mapping[str, Classifier]


class Service:
    """Answers requests with one or several models of the same classes; the first is asked by default.

    All methods but the work itself run in the thread of one event loop, so counts need no lock.

    Args:
        load: Makes the classifiers, by name, and what is to be said of them (``card``). It is called again by
            ``reload``. Each classifier must allow ``workers`` threads.
        workers: Threads that decode and compute.
        waiting: Requests that may wait for a thread; one more is refused.
        limits: What a request may cost.

    Attributes:
        models: The classifiers that new requests get.
        card: What ``load`` said of them; JSON can hold it.
        counters: What happened so far.
    """

    def __init__(
        self,
        load: Callable[[], tuple[Models, Mapping[str, Any]]],
        workers: int,
        waiting: int,
        limits: Limits,
    ) -> None:
        self.limits, self.workers, self.waiting = limits, workers, waiting
        self.counters = Counters()
        self.loaded_at = time.time()
        self._load = load
        self._threads = ThreadPoolExecutor(workers, "predict")
        self._taken = 0
        self._held = 0
        self._reloading = asyncio.Lock()
        self.models, self.card = self._checked()

    def _checked(self) -> tuple[Models, Mapping[str, Any]]:
        """The models, each after one image: the first takes longer, and shows what is broken."""
        models, card = self._load()
        for model in models.values():
            size = model.preprocess.size
            for alone in [True, *[False] * self.workers]:
                model.logits(np.zeros((1, size, size, 3), np.uint8), alone)
        return models, card

    async def reload(self, say: Callable[[str], None]) -> bool:
        """Load the models anew. Requests that are being answered keep the old ones; so do all if the new are bad."""
        async with self._reloading:
            try:
                models, card = await asyncio.to_thread(self._checked)
            except Exception as error:  # whatever is wrong with a file, the old model goes on
                text = str(error) if isinstance(error, EdgeclsError) else first_line(error)
                self.counters.reloads["failed"] += 1
                say(f"kept the old model: {text}")
                return False
            self.models, self.card, self.loaded_at = models, card, time.time()
            self.counters.reloads["ok"] += 1
            say("loaded " + ", ".join(str(model.path) for model in models.values()))
            return True

    @property
    def taken(self) -> int:
        """Requests that have a thread or wait for one."""
        return self._taken

    @property
    def held(self) -> int:
        """Bytes of all bodies that are in memory."""
        return self._held

    def admit(self) -> None:
        """Raises: Refusal: 503, as many requests wait as may."""
        if self._taken >= self.workers + self.waiting:
            raise Refusal(503, "too many requests are waiting; try again", RETRY_S)

    def hold(self, count: int) -> None:
        """Take note of ``count`` more bytes in memory; less for a negative one.

        Raises:
            Refusal: 503, the bodies of all requests are too large together. Nothing was noted.
        """
        if count > 0 and self._held + count > self.limits.memory:
            raise Refusal(503, "the bodies of too many requests are in memory; try again", RETRY_S)
        self._held += count

    def model(self, name: str | None) -> tuple[str, Classifier]:
        """The model of a name, or the first; raises Refusal 404 for an unknown name."""
        name = name or next(iter(self.models))
        if name not in self.models:
            raise Refusal(404, f"there is no such model; models are {', '.join(self.models)}")
        return name, self.models[name]

    def submit(self, content_type: str | None, body: bytes, top: int, model: Classifier) -> Future[Any]:
        """Begin to answer a request; the result is what ``classify`` returns.

        Raises:
            Refusal: 503, as many requests wait as may.
        """
        self.admit()
        loop, alone = asyncio.get_running_loop(), not self._taken
        self._taken += 1
        future = self._threads.submit(self._answer, content_type, body, top, model, alone)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        return future

    def _release(self) -> None:
        self._taken -= 1

    def _answer(
        self, content_type: str | None, body: bytes, top: int, model: Classifier, alone: bool
    ) -> list[dict[str, Any]]:
        photos = uploads(content_type, body, self.limits.images)
        alone = alone and len(photos) == 1  # others would come while many are answered
        return [classify(model, photo, top, self.limits.pixels, alone) for photo in photos]

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()


def classify(
    model: Classifier, photo: Upload, top: int, most_pixels: int, alone: bool = False
) -> dict[str, Any]:
    """Decode and classify one image; for ``alone`` see ``Classifier.logits``.

    Returns:
        ``{"image": name, "predictions": [{"class", "probability"}]}``, as ``Classifier.predict`` does.

    Raises:
        Refusal: 422, it cannot be decoded or has too many pixels.
    """
    try:
        pixels = model.pixels(photo.data, most_pixels)
    except ValueError as error:
        name = f"image {photo.name}" if isinstance(photo.name, int) else photo.name
        raise Refusal(422, f"cannot read {name}: {error}") from None
    (probabilities,) = softmax(model.logits(pixels[None], alone))
    return {"image": photo.name, "predictions": model.best(probabilities, top)}
