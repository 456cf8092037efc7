"""Plans: what is read off a compiled program, how the largest micro-batch is found, and what is said of both."""

import dataclasses
import importlib.util
import json

import jax
import pytest
import tiny
from commands import check_user_error, run

from jax_video import config_flag, hlo, planning, recipe, sharding
from jax_video.data import pipeline
from jax_video.data.manifest import Manifest, Video
from jax_video.errors import UserError

PROGRAM = """
HloModule jit_train_step, is_scheduled=true

%fused (param_0: f32[64]) -> f32[64] {
  %param_0 = f32[64]{0} parameter(0)
  ROOT %add.1 = f32[64]{0} add(%param_0, %param_0)
}

%body (state: (s32[], bf16[1000])) -> (s32[], bf16[1000]) {
  %state = (s32[], bf16[1000]{0}) parameter(0)
  %x = bf16[1000]{0:T(1024)} get-tuple-element(%state), index=1
  %near = bf16[1000]{0:T(1024)S(1)} fusion(%x), kind=kLoop, calls=%fused
  %all-reduce.7 = bf16[1000]{0:T(1024)S(1)} all-reduce(%near), channel_id=1, to_apply=%sum
  ROOT %next = (s32[], bf16[1000]{0}) tuple(%i, %x)
}

ENTRY %main (a: f32[64], b: f32[8,50]) -> (f32[64], f32[8,400]) {
  %a = f32[64]{0} parameter(0)
  %b = f32[8,50]{1,0} parameter(1)
  %copy-start = (f32[64]{0:T(128)S(1)}, f32[64]{0:T(128)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done = f32[64]{0:T(128)S(1)} copy-done(%copy-start)
  %all-reduce.93 = (f32[128]{0}, s32[]{:T(128)}) all-reduce(%c, %d), channel_id=9, to_apply=%sum
  %fusion.7 = f32[64]{0} fusion(%copy-done), kind=kLoop, calls=%fused, metadata={op_name="all-reduce(x)"}
  %loop = (s32[], bf16[1000]{0}) while(%i), body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %all-gather.2 = f32[8,400]{1,0} all-gather(%b), dimensions={0}
  ROOT %results = (f32[64]{0}, f32[8,400]{1,0}) tuple(%fusion.7, %all-gather.2)
}
"""
CHIP = planning.Chip(operations=100.0, memory=1000.0, bandwidth=10.0, network=5.0)


@pytest.fixture
def where():
    """A slice whose devices are this process's eight."""
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    return planning.Slice("v5e:2x4", CHIP, mesh, hosts=2)


def test_what_a_program_reads_writes_and_exchanges():
    """Not what stays on the chip, S(1), nor what fusions do inside; a loop's body as often as it runs."""
    traffic, exchanged = hlo.measure(PROGRAM)
    copied, gathered = 4 * 64, 4 * 8 * 50 + 4 * 8 * 400
    assert traffic == copied + (4 * 128 + 4) + 4 * 64 + 3 * 2 * 1000 + gathered
    assert exchanged == {"all-reduce": (1 + 3, 4 * 128 + 4 + 3 * 2 * 1000), "all-gather": (1, 4 * 8 * 400)}


def test_a_loop_whose_condition_alone_says_how_often_it_runs():
    """As TPUs' compiler leaves a scan over micro-batches."""
    condition = """
%condition (state: (s32[], bf16[1000])) -> pred[] {
  %limit = s32[]{:T(128)} constant(3)
  %state = (s32[]{:T(128)}, bf16[1000]{0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY"""
    scan = PROGRAM.replace('backend_config={"known_trip_count":{"n":"3"}}', "condition=%condition")
    assert scan != PROGRAM
    scan = scan.replace("\nENTRY", condition)
    assert hlo.measure(scan) == hlo.measure(PROGRAM)
    with_layouts = scan.replace("compare(%i, %limit)", "compare(s32[]{:T(128)} %i, s32[]{:T(128)} %limit)")
    assert hlo.measure(with_layouts) == hlo.measure(PROGRAM)
    with pytest.raises(UserError, match="cannot read how often it runs"):
        hlo.measure(scan.replace("direction=LT", "direction=NE"))


def test_the_time_of_an_exchange_is_that_of_a_ring():
    compiled = planning.Compiled(True, 1.0, collectives={"all-reduce": (2, 40.0), "all-gather": (1, 16.0)})
    assert compiled.exchange(CHIP, 1) == 0.0
    assert compiled.exchange(CHIP, 4) == pytest.approx((2 * 40 + 16) * 3 / 4 / 5)


def test_a_program_that_is_too_large_says_so():
    message = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    found = planning._too_large(message + "Used 25.50G of 15.75G hbm. Exceeded hbm capacity by 9.75G.")
    assert not found.fits and (found.peak, found.capacity) == (25.5 * 2**30, 15.75 * 2**30)
    with pytest.raises(UserError, match="cannot be compiled: INTERNAL: Mosaic"):
        planning._too_large("INTERNAL: Mosaic")


@pytest.mark.parametrize(
    ("batch", "each", "fixed", "largest"),
    [
        (64, 10.0, 100.0, 64),  # the whole batch fits
        (256, 10.0, 100.0, 64),
        (96, 10.0, 100.0, 48),  # parts of the batch alone count
        (256, 100.0, 100.0, 8),
        (256, 10.0, 950.0, 0),  # not even one video a chip
    ],
)
def test_the_largest_micro_batch_is_found(where, monkeypatch, batch, each, fixed, largest):
    """Where memory grows by the same with every video, it takes three compilations at most."""
    tried = []

    def train_step(self, batch, micro_batch):
        tried.append(micro_batch or batch)
        peak = fixed + each * tried[-1]
        return planning.Compiled(peak <= CHIP.memory, peak, capacity=CHIP.memory)

    monkeypatch.setattr(planning.Planner, "train_step", train_step)
    monkeypatch.setattr(planning.Slice, "of", lambda name: where)
    found = planning.plan(tiny.get_config(), "v5e:2x4", batch=batch, classes=8)
    if tried == [batch]:
        assert found.step.fits and found.largest is None and largest == batch
    else:
        assert found.largest == largest and (found.fitted is not None) == bool(largest)
    assert len(tried) <= 3 and len(set(tried)) == len(tried)


@pytest.mark.parametrize(
    ("micro_batch", "group", "largest"),
    [
        (64, None, 16),  # each micro-batch is a group
        (64, 32, 32),
        (64, 64, 0),  # a smaller one would break the groups
        (None, None, 16),
    ],
)
def test_groups_follow_from_each_micro_batch_that_is_tried(where, monkeypatch, micro_batch, group, largest):
    """Every program that is compiled is another one."""
    config, tried = tiny.get_config(), []
    config.train.update(batch=128, micro_batch=micro_batch)
    config.norm.group_size = group

    def step_of(config, *_):
        tried.append((config.train.micro_batch or config.train.batch, config.norm.group_size))

    def compiled(self, trace, repeats=1):
        peak = 10.0 + 40.0 * tried[-1][0] * (1 if group is None else 0.5)
        return planning.Compiled(peak <= CHIP.memory, peak, capacity=CHIP.memory)

    monkeypatch.setattr(planning.train, "step_of", step_of)
    monkeypatch.setattr(planning.Planner, "_compile", compiled)
    monkeypatch.setattr(planning.Slice, "of", lambda name: where)
    found = planning.plan(config, "v5e:2x4", classes=8)
    assert (found.largest, found.micro_batch, tried[0][0]) == (largest, micro_batch, micro_batch or 128)
    assert len(set(tried)) == len(tried) and all(size % (group or 1) == 0 for size, _ in tried)
    assert all(of == (group or size) for size, of in tried[1:])


@pytest.mark.parametrize(
    "text, clip",
    [
        ("stc:model=stc_resnet101,data=x", (16, 112, 112)),
        ("cost:model=cost_b_resnet50,data=x", (8, 256, 320)),  # whole frames
        ("cost:model=cost_b_resnet50,data=x,test=three", (8, 256, 256)),
        ("st_resnet:phase=motion,data=x", (25, 256, 320)),
        ("st_resnet:phase=joint,appearance=a,motion=b,data=x", (25, 256, 320)),  # 25 frames of the whole video
        ("st_resnet:phase=star,start=c,data=x", (25, 256, 320)),
    ],
)
def test_a_test_is_planned_with_the_clips_that_it_has(where, text, clip):
    text, _, three = text.partition(",test=")
    config = config_flag.load(text)
    config.test.crop = three or config.test.crop
    planner = planning.Planner(config, where, classes=3)
    assert planner.clip("test") == clip
    assert planner.clip()[1:] == (config.clip.size, config.clip.size)
    video = Video("", 0, "test", 200, 25.0, 340, 256, None, "")
    found = pipeline.cropped_clips(
        Manifest("", ("a",), "", (video,)), "test", planner.task.sampling, planner.task.protocol
    )
    assert {(*each.frames.shape, *each.size) for each in found} == {clip}


def test_only_micro_batches_that_training_takes_are_tried(where):
    config = tiny.get_config()
    config.norm.group_size, config.train.batch = 8, 96
    planner = planning.Planner(config, where, classes=3)
    sizes = [size for size in range(8, 96, 8) if 96 % size == 0 and planner.can_divide(96, size)]
    assert sizes == [8, 16, 32]  # of 24 a chip has 3 videos, which make no group of 8 with others
    config.norm.group_size, config.norm.frozen, config.train.mixup = None, True, 0.2
    assert [size for size in sizes if planning.Planner(config, where, classes=3).can_divide(96, size)] == [16, 32]


def test_a_report_says_what_bounds_a_step(where):
    config = recipe.resolve(tiny.get_config())
    planner = planning.Planner(config, where, classes=8)
    step = planning.Compiled(
        True, 800.0, temporaries=500.0, operations=200.0, traffic=40.0, collectives={"all-reduce": (3, 10.0)}
    )
    told = planning.report(planning.Plan(planner, "train", 16, None, step), videos=600, decoding=10.0)
    assert "resnet3d18, train, on v5e:2x4: 8 chips, 2 hosts\n16 videos; 4 × 32² of rgb; float32; 8 classes" in told
    # 200 / 100 and 40 / 10 seconds, of which the longer, and 2 × 7/8 × 10 / 5.
    assert "Bound by memory: at the least 7,500.0 ms" in told and "\n  2 clips/s at the most" in told
    assert "an epoch of 600 videos in 281 s" in told
    assert "each host must deliver 1 clips/s of 4 frames: 1 cores that decode 10 frames/s" in told
    shares = [4 / (4 + 4 * (n - 1) / n) for n in (8, 16, 32, 64, 128, 256)]
    assert told.splitlines()[-1].split() == [f"{share:.1%}" for share in shares]
    alone = dataclasses.replace(where, mesh=sharding.make_mesh([jax.devices()[0]]), hosts=1)
    told = planning.report(planning.Plan(planning.Planner(config, alone, classes=8), "train", 16, None, step))
    assert "1 chip, 1 host\n" in told and "Of more chips" not in told  # one exchanges nothing that could be scaled
    refused = planning.Compiled(False, 3 * 2**30, capacity=2**30)
    told = planning.report(planning.Plan(planner, "train", 16, None, refused, 8, step))
    assert "3.00 of 1.00: it does not fit" in told and "--config.train.micro_batch=8" in told
    told = planning.report(planning.Plan(planner, "train", 16, None, refused, 0))
    assert "Nothing that was tried fits: take --config.model.remat=True" in told and "clips/s" not in told


@pytest.mark.parametrize("name", ["v5e", "v5e:8", "v5e:2x", "h100:8x1", "2x4"])
def test_slices_that_do_not_exist(name):
    with pytest.raises(UserError, match=f"--topology={name}: expected a kind of TPU, one of v5e, v5p, v6e"):
        planning.Slice.of(name)


def test_without_the_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'takes their compiler: pip install "jax\[tpu\]<0.13"'):
        planning.Slice.of("v5e:2x4")


def test_the_command_refuses_what_it_cannot_do(tmp_path):
    check_user_error(run("jax_video.plan", "video.mp4"), "unexpected arguments 'video.mp4'")
    check_user_error(run("jax_video.plan", "--config=stc", "--topology=v9"), "--topology=v9: expected a kind of TPU")


compiler = pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason='needs pip install "jax[tpu]"')


@compiler
@pytest.mark.slow
def test_a_tiny_network_is_planned_and_remembered(tmp_path):
    """A fresh process, since this one's JAX may have no TPU's compiler beside its devices."""
    config = "--config=tests/tiny.py"
    flags = ("--config.model.name=resnet3d10", "--config.dtype=bfloat16", "--batch=16", "--classes=8")
    env = {"JAX_VIDEO_CACHE": str(tmp_path)}
    first = run("jax_video.plan", config, *flags, env=env, timeout=600)
    assert first.code == 0, first.stderr
    assert "it fits" in first.stdout and "Bound by" in first.stdout and "Warning" not in first.stderr
    (path,) = (tmp_path / "plans").iterdir()
    saved = json.loads(path.read_text())
    assert saved["collectives"]["all-reduce"][0] > 1 and saved.keys() == {
        field.name for field in dataclasses.fields(planning.Compiled)
    }
    path.write_text(json.dumps(saved | {"operations": 123e12}))  # what is remembered is what is told
    assert "123.000 TFLOP" in run("jax_video.plan", config, *flags, env=env).stdout
    tested = run("jax_video.plan", config, *flags, "--mode=test", env=env, timeout=600)
    assert tested.code == 0 and "16 clips" in tested.stdout and "optimizer" not in tested.stdout
