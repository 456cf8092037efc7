"""Knowledge transfer from a 2D to a 3D network (STC §3.2, T3D §3.2).

A frozen 2D network, the teacher, sees the frames of a clip; a 3D network, the student, sees the clip. A classifier of
the features of both tells whether frames and clip belong together, which needs no label. Only the student is kept:
its weights are `params["student"]`, its running statistics `batch_stats["student"]`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from jax_video.errors import UserError
from jax_video.models.layers import Linear, freeze, in_test_mode, param_dtype

he_normal = nnx.initializers.he_normal()
HALF = 512  # width of the classifier's first hidden layer


def derangement(key, ids, present=None):
    """Pair every clip with a clip of another video, at random.

    The clips are put in a random order in which those of a video are neighbours. The pairs are this order and the same
    order rotated by k places. k is random, at least the number m of clips of the video that has the most, and at most
    B - m, so that no clip meets one of its own video.

    Args:
      key: a random key.
      ids: `[B]` int, the video of each clip.
      present: `[B]` bool, False for padding, which is left out. None: all are clips.

    Returns:
      source: `[B]` int, a permutation: clip i is paired with clip `source[i]`.
      valid: `[B]` bool, whether the two are of different videos. All are, unless one video has more than half of the
        clips; then as few as possible are not.
    """
    batch = ids.shape[0]
    present = jnp.ones(batch, bool) if present is None else present
    count = jnp.sum(present)
    among_videos, within_video, places = jax.random.split(key, 3)
    same = (ids[:, None] == ids[None, :]) & present[:, None] & present[None, :]  # [B, B]
    video = jax.random.permutation(among_videos, batch)[jnp.argmax(same, axis=1)]  # a random number for each video
    ranks = (jax.random.permutation(within_video, batch), video, ~present)
    order = jnp.lexsort(ranks)  # [B], padding last
    most = jnp.max(jnp.sum(same, axis=1))  # m
    k = jax.random.randint(places, (), most, jnp.maximum(most, count - most) + 1)
    place = jnp.arange(batch)
    other = jnp.where(place < count, (place + k) % jnp.maximum(count, 1), place)
    source = jnp.zeros_like(order).at[order].set(order[other])
    return source, present & (ids[source] != ids)


class Correspondence(nnx.Module):
    """Teacher, student and the classifier of their features (Figure 2 of both papers).

    Args:
      student: the 3D network, whose `features` are trained. Its own classifier takes no part and gets no gradient.
      teacher: the 2D network, `features(video)` to `[B, T', H', W', D]` whose mean over all places is the mean over the
        frames of the pooled features. It is frozen here, in place: it stays in test mode, and its weights become
        constants among the running statistics, where no weight decay can reach them.
      clip: frames, height and width of the clips, from which the widths of both networks' features follow.
      dtype: of the classifier's layers, float32 at least.
      rngs: key of the initial parameters.
    """

    def __init__(self, student, teacher, *, clip, dtype=jnp.float32, rngs):
        freeze(teacher)
        self.student, self.teacher = student, teacher
        layer = {"kernel_init": he_normal, "dtype": param_dtype(dtype), "rngs": rngs}
        self.fc = Linear(feature_width(student, clip), 1024, **layer)
        self.fc1 = Linear(1024 + feature_width(teacher, clip), HALF, **layer)
        self.fc2 = Linear(HALF, 128, **layer)
        self.classifier = Linear(128, 2, dtype=param_dtype(dtype), rngs=rngs)

    def __call__(self, video, *, ids, key, present=None):
        """Tell pairs of frames and clip that belong together from pairs that do not.

        A clip and its own frames make a positive pair; a clip and the frames of another video's clip, drawn from the
        same batch, make a negative one. So both networks see every clip once.

        Args:
          video: normalised video `[B, T, H, W, 3]`.
          ids: `[B]` int, the video of each clip.
          key: one random key, which decides on the negative pairs.
          present: `[B]` bool, False for padding, which makes no pair. None: all are clips.

        Returns:
          logits: `[2B, 2]`, of the B positive pairs and then of the B negative ones.
          label: `[2B]` int32, 1 for a positive and 0 for a negative pair.
          weight: `[2B]`, 1, or 0 where there is no pair: a clip is padding, or too many clips are of one video.

        Raises:
          UserError: there is not one id for each clip, or the networks do not take the video.
        """
        if ids.shape != video.shape[:1]:
            raise UserError(f"got ids of shape {ids.shape} for {video.shape[0]} clips; expected the video of each clip")
        clips, frames = self._features(video)
        present = jnp.ones(ids.shape, bool) if present is None else present
        source, valid = derangement(key, ids, present)
        pairs = jnp.concatenate([clips, clips]), jnp.concatenate([frames, frames[source]])  # [2B, 1024], [2B, D]
        logits = self.tell(self.fc1(jnp.concatenate(pairs, axis=-1)))
        label = jnp.repeat(jnp.array([1, 0], jnp.int32), len(ids))
        weight = jnp.concatenate([present, valid]).astype(logits.dtype)
        return logits, label, weight

    def halves(self, video):
        """The outputs of `fc1` for clips and for their frames alone, so that any two can be paired later.

        Args:
          video: normalised video `[B, T, H, W, 3]`.

        Returns:
          Of the clips and of the frames, each `[B, 512]`: `tell` takes the sum of one of each.
        """
        clips, frames = self._features(video)
        of_clips = self.fc1(jnp.concatenate([clips, jnp.zeros_like(frames)], axis=-1))  # with the bias
        of_frames = self.fc1(jnp.concatenate([jnp.zeros_like(clips), frames], axis=-1)) - self.fc1.bias[...]
        return of_clips, of_frames

    def tell(self, hidden):
        """Logits `[B, 2]` of pairs, from their outputs of `fc1`, `[B, 512]`."""
        return self.classifier(nnx.relu(self.fc2(nnx.relu(hidden))))

    def _features(self, video):
        """Features of the clips, `[B, 1024]`, and of their frames, `[B, D]`."""
        frames = jax.lax.stop_gradient(pooled(in_test_mode(self.teacher), video))
        return self.fc(pooled(self.student, video)), frames


def pooled(network, video):
    """The mean of a network's features over time and space, `[B, D]`, of video `[B, T, H, W, 3]`."""
    features = network.features(video)
    return features.mean(axis=(1, 2, 3), dtype=param_dtype(features.dtype))


def feature_width(network, clip):
    """D of a network's features, for clips of (frames, height, width)."""
    network = in_test_mode(network)  # in test mode no running statistics are written
    return jax.eval_shape(network.features, jax.ShapeDtypeStruct((1, *clip, 3), jnp.float32)).shape[-1]
