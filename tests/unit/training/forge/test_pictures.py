"""Each visual recipe changes the face, or the course of the frames, and no pixel else."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from skimage.transform import SimilarityTransform

from clipwarden.models.training.forge.anatomy import HEAD_REACH, MEAN_FACE, Pose, face_mask, similarity
from clipwarden.models.training.forge.blending import recoloured, seamless
from clipwarden.models.training.forge.recipe import Moment, Sources, seeded
from clipwarden.models.training.forge.recipes import RECIPES
from clipwarden.models.training.forge.reconstruction import SIDE_PX, aligned
from clipwarden.models.training.forge.swap import REACH
from clipwarden.models.training.forge.timing import DROP, DUPLICATE, FREEZE
from tests.media import scenery

FACE_RECIPES = ("face_swap", "self_blending", "autoencoder", "components", "upsampler")


@pytest.fixture(scope="module")
def moments(own, fence):
    return [Moment(m.index, m.time_s, m.image.copy(), m.points) for m in own.moments(fence)]


def edited(name, own, other, moments, seed=0):
    recipe, rng = RECIPES[name], seeded(seed, name)
    parameters = recipe.draw(rng)
    if "steps" in parameters:
        parameters["steps"] = 6.0
    edit = recipe.look(Sources(own.take, other.take), parameters, rng)
    return [edit(m) for m in moments]


def test_the_face_is_followed_through_the_clip(own, moments):
    assert len(moments) == own.take.frames == 16
    assert all(m.points is not None for m in moments)
    assert len(own.take.portraits) == 8
    assert own.take.still.image.shape == moments[0].image.shape


@pytest.mark.parametrize("name", FACE_RECIPES)
def test_a_face_recipe_changes_the_face_and_no_pixel_else(name, own, other, moments):
    for moment, image in zip(moments[::8], edited(name, own, other, moments[::8]), strict=True):
        window = Pose.of(moment.points).window(image.shape, REACH)
        outside = np.ones(image.shape[:2], bool)
        window.of(outside)[:] = False
        assert np.array_equal(image[outside], moment.image[outside])
        inner = face_mask(Pose.of(moment.points), window, 0.6, 0.2) > 0.99
        changed = np.abs(window.of(image).astype(int) - window.of(moment.image))[inner]
        assert changed.mean() > 0.5
        assert image is not moment.image


@pytest.mark.parametrize("name", FACE_RECIPES)
def test_a_frame_without_a_face_stays_as_it_is(name, own, other, moments):
    unseen = [Moment(m.index, m.time_s, m.image, None) for m in moments[:2]]
    assert all(np.array_equal(a, m.image) for a, m in zip(edited(name, own, other, unseen), unseen, strict=True))


def test_a_reanimated_still_moves_within_the_head_and_with_the_voice(own, other, moments):
    still = own.take.still
    images = edited("reanimation", own, other, moments)
    pose = Pose.of(still.points)
    outside = np.ones(still.image.shape[:2], bool)
    pose.window(still.image.shape, HEAD_REACH).of(outside)[:] = False
    assert outside.any()
    assert all(np.array_equal(image[outside], still.image[outside]) for image in images)
    steps = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(images)]
    assert min(steps) > 0.01
    left, top = still.points[3:].min(axis=0).astype(int)
    dark = [float(image[top : top + 14, left : left + 20].mean()) for image in images]
    assert np.corrcoef(dark, own.take.loudness)[0, 1] < -0.4


def test_the_swapped_in_face_is_the_other_ones(own, other, moments):
    image = edited("face_swap", own, other, moments[:1])[0]
    mine, swapped = (aligned(p, moments[0].points)[0].astype(float) for p in (moments[0].image, image))
    portrait = min(other.take.portraits, key=lambda p: np.abs(aligned(p.image, p.points)[0] - swapped).mean())
    theirs = aligned(portrait.image, portrait.points)[0].astype(float)
    middle = slice(SIDE_PX // 4, 3 * SIDE_PX // 4)
    near, far = (np.corrcoef(swapped[middle, middle].ravel(), p[middle, middle].ravel())[0, 1] for p in (theirs, mine))
    assert near > 0.8
    assert near > far


def test_a_freeze_holds_one_stretch_and_lets_the_rest_pass(own, other, moments):
    images = edited("freeze", own, other, moments)
    held = [np.array_equal(a, b) for a, b in pairwise(images)]
    first, last = held.index(True), len(held) - held[::-1].index(True)
    assert all(held[first:last])
    assert last - first >= 1
    assert all(np.array_equal(images[k], moments[k].image) for k in (*range(first + 1), *range(last + 1, len(images))))


def test_dropped_frames_leave_gaps_and_the_others_as_they_were(own, other, moments):
    images = edited("drop", own, other, moments)
    missing = [k for k, image in enumerate(images) if image is None]
    assert missing
    assert 0 not in missing
    assert all(image is m.image for image, m in zip(images, moments, strict=True) if image is not None)


def test_duplicates_show_a_frame_twice_at_a_steady_pace(own, moments):
    edit = DUPLICATE.look(Sources(own.take), {"every": 3.0}, seeded(0))
    images = [edit(m) for m in moments]
    same = [k for k in range(1, len(images)) if np.array_equal(images[k], images[k - 1])]
    assert same == list(range(2, len(images), 3))


@pytest.mark.parametrize("recipe", [FREEZE, DROP, DUPLICATE])
def test_an_edit_of_time_survives_the_shortest_clip(recipe, own, moments):
    from dataclasses import replace

    take = replace(own.take, frames=2)
    edit = recipe.look(Sources(take), recipe.draw(seeded(1)), seeded(2))
    assert edit(moments[0]) is not None
    edit(moments[1])


def test_the_pose_is_the_similarity_that_scikit_image_estimates():
    rng = np.random.default_rng(0)
    points = MEAN_FACE @ np.array([[30.0, 8.0], [-8.0, 30.0]]) + (120, 90) + rng.normal(0, 2, (5, 2))
    reference = SimilarityTransform.from_estimate(MEAN_FACE, points)
    np.testing.assert_allclose(similarity(MEAN_FACE, points), reference.params[:2], atol=1e-9)


def test_recolouring_brings_mean_and_spread_together():
    over, under = (np.ascontiguousarray(p) for p in (next(scenery(1, seed=1)), 255 - next(scenery(1, seed=2))))
    mask = np.ones(over.shape[:2], np.float32)
    matched, goal = (cv2.cvtColor(p, cv2.COLOR_RGB2LAB).astype(float) for p in (recoloured(over, under, mask), under))
    np.testing.assert_allclose(matched.mean(axis=(0, 1)), goal.mean(axis=(0, 1)), atol=1.5)


def test_a_solved_seam_has_no_step_where_colours_differ():
    under = np.full((80, 80, 3), 90, np.uint8)
    over = np.full((80, 80, 3), 160, np.uint8)
    mask = np.zeros((80, 80), np.float32)
    mask[20:60, 20:60] = 1
    solved = seamless(over, under, mask).astype(int)
    assert np.abs(np.diff(solved[40, :, 0])).max() < 8
    assert np.array_equal(solved[mask == 0], under[mask == 0])
