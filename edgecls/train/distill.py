"""Distillation in a recipe: the section itself, and distances between a teacher's answers and the student's.

A distance is a section of the recipe (``distill.loss``) that is called. A new one is a class in ``DISTANCES``. None of
them needs labels, and no gradient flows into the teacher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from edgecls._explain import Wrong
from edgecls._lazy import Lazy
from edgecls._schema import FilePath, Section, one_of

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = Lazy("tensorflow")


class Distance(Section):
    """What every distance has: it is called with two sets of logits and gives a value for each image."""

    name: str

    def __call__(
        self, teacher: tf.Tensor, student: tf.Tensor, targets: tf.Tensor, temperature: float = 1.0
    ) -> tf.Tensor:
        """The distance of each image, multiplied by the temperature's square so that gradients keep their size.

        Args:
            teacher: Logits, float32 [B, C].
            student: Logits, float32 [B, C].
            targets: Soft labels, float32 [B, C]; a row of zeros for an unlabeled image. Only some distances look at
                them.
            temperature: Divides both logits (Hinton et al. 2015, arXiv:1503.02531).

        Returns:
            float32 [B].
        """
        logs = [tf.nn.log_softmax(x / temperature) for x in (tf.stop_gradient(teacher), student)]
        return temperature**2 * self._between(logs[0], logs[1], self._target(teacher, targets))

    def _between(self, teacher: tf.Tensor, student: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """The distance of log-probabilities [B, C]; ``target`` is each image's class, one-hot [B, C]."""
        raise NotImplementedError

    @staticmethod
    def _target(teacher: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """One-hot: the label with the largest share; without a label the teacher's first answer."""
        labelled = tf.reduce_sum(targets, axis=-1, keepdims=True) > 0
        return tf.one_hot(tf.argmax(tf.where(labelled, targets, teacher), axis=-1), teacher.shape[-1])


class Js(Distance):
    """What SSLD uses (Cui et al. 2021, arXiv:2103.05959).

    The originals call it Jensen-Shannon divergence; it is the mean of the two Kullback-Leibler divergences between
    teacher and student.

    Example:
        >>> logits = tf.constant([[1.0, 2.0]])
        >>> float(Js()(logits, logits, tf.zeros((1, 2)))[0])
        0.0
    """

    name: Literal["js"] = Field(
        default="js", description="SSLD's: the mean of the two Kullback-Leibler divergences"
    )

    def _between(self, teacher: tf.Tensor, student: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        # KL(t|s) + KL(s|t) = sum (t - s) (log t - log s): one product instead of two divergences.
        return 0.5 * tf.reduce_sum((tf.exp(teacher) - tf.exp(student)) * (teacher - student), axis=-1)


class Kl(Distance):
    """Kullback-Leibler divergence of the student from the teacher (Hinton et al. 2015, arXiv:1503.02531)."""

    name: Literal["kl"] = Field(
        default="kl", description="Kullback-Leibler divergence of the student from the teacher"
    )

    def _between(self, teacher: tf.Tensor, student: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        return _kl(teacher, student)


class Ce(Distance):
    """Cross-entropy with the teacher's probabilities: ``Kl`` and the teacher's entropy, so its gradients are equal."""

    name: Literal["ce"] = Field(
        default="ce",
        description="cross-entropy with the teacher's probabilities; gradients are those of `kl`",
    )

    def _between(self, teacher: tf.Tensor, student: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(tf.exp(teacher) * student, axis=-1)


class Dist(Distance):
    """Correlation instead of equality, for teachers much stronger than the student (Huang et al. 2022, 2205.10536).

    One minus Pearson's correlation of teacher and student between the classes of each image, and between the images of
    the batch for each class. The second part is of the whole batch, and is added to each image.
    """

    name: Literal["dist"] = Field(
        default="dist", description="correlation between classes and, for each class, between images"
    )
    inter: float = Field(default=1.0, ge=0, description="factor of the part between the classes of an image")
    intra: float = Field(default=1.0, ge=0, description="factor of the part between the images of a class")

    def _between(self, teacher: tf.Tensor, student: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        teacher, student = tf.exp(teacher), tf.exp(student)
        between_classes = 1.0 - _correlation(teacher, student, axis=1)
        between_images = tf.reduce_mean(1.0 - _correlation(teacher, student, axis=0))
        return self.inter * between_classes + self.intra * between_images


class Dkd(Distance):
    """The target class and the others apart (Zhao et al. 2022, arXiv:2203.08679).

    ``Kl`` is the divergence of the target class against the rest, plus that among the other classes times the teacher's
    doubt. Here each part has a factor of its own, so a sure teacher still teaches what it thinks of the other classes.
    """

    name: Literal["dkd"] = Field(default="dkd", description="the target class and the others apart")
    alpha: float = Field(default=1.0, ge=0, description="factor of the part of the target class")
    beta: float = Field(default=8.0, ge=0, description="factor of the part among the other classes")

    def _between(self, teacher: tf.Tensor, student: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        far = -1e4 * target  # takes the target class out of a softmax
        among_others = _kl(tf.nn.log_softmax(teacher + far), tf.nn.log_softmax(student + far))
        return self.alpha * _kl(_binary(teacher, target), _binary(student, target)) + self.beta * among_others


def _kl(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Kullback-Leibler divergence of log-probabilities [B, C]: [B]."""
    return tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=-1)


def _binary(logs: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Log-probabilities [B, 2] of the target class and of all others together."""
    far = -1e4
    hit = tf.reduce_logsumexp(logs + far * (1.0 - target), axis=-1)
    rest = tf.reduce_logsumexp(logs + far * target, axis=-1)
    return tf.stack([hit, rest], axis=-1)


def _correlation(a: tf.Tensor, b: tf.Tensor, axis: int) -> tf.Tensor:
    """Pearson's correlation along an axis; 0 where one of the two does not vary."""
    a = a - tf.reduce_mean(a, axis=axis, keepdims=True)
    b = b - tf.reduce_mean(b, axis=axis, keepdims=True)
    product = tf.reduce_sum(a * b, axis=axis)
    size = tf.reduce_sum(a * a, axis=axis) * tf.reduce_sum(b * b, axis=axis)
    return product * tf.math.rsqrt(tf.maximum(size, 1e-16))


DISTANCES = (Js, Kl, Ce, Dist, Dkd)
if TYPE_CHECKING:
    AnyDistance = Distance
else:
    AnyDistance = one_of(DISTANCES)  # the type of the recipe's ``distill.loss`` key


class Distill(Section):
    """Learning from the teacher's answers (SSLD)."""

    loss: AnyDistance = Field(default=Js(), description="distance between the two answers")
    weight: float = Field(default=1.0, ge=0, description="factor of that distance in the loss")
    hard_weight: float = Field(default=0.0, ge=0, description="factor of the cross-entropy with the labels")
    teacher_bn: Literal["train", "infer"] = Field(
        default="train",
        description="batch normalization of the teacher: with the statistics of the batch (`train`, for large"
        " batches), or with its stored ones (`infer`)",
    )
    temperature: float = Field(default=1.0, gt=0, description="divides the logits of both networks")
    mutual: bool = Field(
        default=False,
        description="the teacher is a second student: both learn from the labels and from each other, in the same"
        " steps (DML); it is dropped after the training",
    )
    views: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="each image has that many fixed crops, mirrors and colors; the teacher's answers to them are"
        " computed once and kept on disk, so that further epochs cost the student alone; null: new ones in each"
        " epoch, and the teacher answers in each step",
    )
    top_k: int | None = Field(
        default=None,
        ge=1,
        description="classes of an answer that `views` keeps, the likeliest; the rest is spread over the others;"
        " null: all",
    )
    store: FilePath | None = Field(
        default=None,
        description="folder of the answers of `views`, which several runs may share; null: in the run",
    )

    @model_validator(mode="after")
    def _possible(self) -> Distill:
        if self.views is not None and self.teacher_bn == "train":
            fix = "set distill.teacher_bn to infer, or remove distill.views"
            raise Wrong(
                "views cannot keep answers that depend on the rest of the batch",
                "teacher_bn",
                "views",
                fix=fix,
            )
        for key in ("top_k", "store"):
            if self.views is None and getattr(self, key) is not None:
                raise Wrong(f"{key} is of views, which are off", key, fix="set distill.views, or remove it")
        if self.mutual and self.views is not None:
            raise Wrong(
                "views need a teacher that does not change", "views", "mutual", fix="remove one of the two"
            )
        if self.mutual and not self.hard_weight:
            fix = "set distill.hard_weight above 0; 1 as published"
            raise Wrong("two students need labels to learn from", "hard_weight", "mutual", fix=fix)
        return self
