"""The main figure of each paper, drawn anew; numbers in them are read off the networks."""

import jax
import jax.numpy as jnp
import numpy as np
from drawing import FILLS, INK, arrow, box, circle, svg, text

from jax_video.models import correspondence, cost, t3d
from jax_video.summary import Summary

BLUE, ORANGE, GREEN, PURPLE, RED = FILLS


def figures() -> dict[str, str]:
    """{path below docs: figure}."""
    made = {"stc_block": _stc, "ttl": _ttl, "cost_views": _cost, "st_resnet_unit": _st_resnet}
    made |= {"transfer": _transfer, "data_flow": _data_flow}
    return {f"figures/{name}.svg": draw() for name, draw in made.items()}


def _stc() -> str:
    """The STC block of the first unit of STC-ResNet-50 for 16 frames."""
    summary = Summary("stc_resnet50")
    stc = summary.params["layer1"][0]["stc"]
    last = [layer for layer in summary.layers() if layer.name.startswith("layer1.0.bn")][-1]
    frames, height, width, channels = last.output

    def sizes(branch: str) -> str:
        first = stc[branch]["fc1"]["kernel"].shape
        second = stc[branch]["fc2"]["kernel"].shape
        return f"FC {first[0]} → {first[1]}, ReLU\nFC {second[0]} → {second[1]}, sigmoid"

    shapes = [
        box(10, 110, 118, 62, f"X, {frames}×{height}×{width}\n×{channels}", fill=ORANGE),
        arrow((128, 130), (150, 130), (150, 50), (172, 50)),
        arrow((128, 152), (150, 152), (150, 232), (172, 232)),
        text(240, 20, "TCB: temporal correlation", bold=True),
        box(174, 28, 132, 46, f"mean over T, H, W\n[{channels}]"),
        arrow((306, 50), (330, 50)),
        box(332, 28, 180, 46, sizes("tcb")),
        text(240, 202, "SCB: spatial correlation", bold=True),
        box(174, 210, 132, 46, f"mean over H, W\n[{frames} · {channels}]", fill=GREEN),
        arrow((306, 232), (330, 232)),
        box(332, 210, 180, 46, sizes("scb"), fill=GREEN),
        arrow((512, 50), (560, 50), (560, 122)),
        arrow((512, 232), (560, 232), (560, 162)),
        box(520, 122, 84, 40, "mean of\nthe scales", fill=PURPLE, size=12),
        arrow((604, 142), (628, 142)),
        arrow((128, 141), (480, 141), (480, 185), (642, 185), (642, 158), dashed=True),
        circle(642, 142, "×", fill=PURPLE),
        arrow((656, 142), (684, 142)),
        circle(698, 142, "+", fill=ORANGE),
        arrow((110, 286), (698, 286), (698, 158), dashed=True),
        text(104, 290, "the unit's input", size=12, anchor="end"),
        text(390, 280, "shortcut", size=12),
        arrow((712, 142), (740, 142)),
        text(762, 147, "ReLU"),
    ]
    return svg(796, 300, "The STC block at the end of a residual unit", shapes)


def _ttl() -> str:
    """The first temporal transition layer of T3D-121."""
    summary = Summary("t3d121")
    kernels = {
        layer.name: layer.output for layer in summary.layers() if "transition1" in layer.name and "conv" in layer.name
    }
    branches = sorted(kernels.items())
    depth, channels = t3d.DEPTHS[1], [shape[-1] for _, shape in branches]
    frames, height, width = branches[0][1][:3]
    total = sum(channels)
    taps = ("1×1×1", "3×3×3", f"{depth}×3×3")
    shapes = [box(10, 96, 130, 56, f"dense block 1\n{frames}×{height}×{width}", fill=ORANGE)]
    for place, (kernel, count) in enumerate(zip(taps, channels, strict=True)):
        y = 20 + place * 84
        shapes += [
            arrow((140, 124), (175, 124), (175, y + 22), (200, y + 22)),
            box(202, y, 190, 46, f"BN, ReLU, conv {kernel}\n{count} channels", fill=FILLS[(0, 2, 3)[place]]),
            arrow((392, y + 22), (430, y + 22), (430, 124), (452, 124)),
        ]
    shapes += [
        box(454, 96, 110, 56, f"concatenate\n{total} channels", fill=PURPLE),
        arrow((564, 124), (590, 124)),
        box(592, 96, 150, 56, f"mean pool 2×2×2\n{frames // 2}×{height // 2}×{width // 2}×{total}", fill=RED),
        text(
            297, 272, f"longest kernels of the three layers: {', '.join(map(str, t3d.DEPTHS.values()))} frames", size=12
        ),
    ]
    return svg(756, 286, "A temporal transition layer", shapes)


def _cost() -> str:
    """The three views of one 3×3 kernel, and what of 3×3×3 they fill together."""
    kernel = jnp.ones((3, 3, 1, 1))
    fused = cost.fuse_views(jnp.ones((3, 3, 3, 1, 1)), jnp.ones((3, 1)))[..., 0, 0]
    pad = [
        np.pad(np.asarray(view[..., 0, 0]), [((3 - n) // 2,) * 2 for n in view.shape[:3]])
        for view in cost.views(kernel)
    ]
    alpha = jax.nn.softmax(jnp.array(cost.INITIAL_ALPHA))
    shapes, side = [], 15
    for place, (name, grid) in enumerate([*zip(cost.VIEWS, pad, strict=True), ("together", np.asarray(fused))]):
        x0, fill = 14 + place * 205, FILLS[(0, 2, 3, 1)[place]]
        for t, row, column in np.ndindex(3, 3, 3):
            x, y, filled = x0 + t * 56 + column * side, 34 + row * side, grid[t, row, column] != 0
            shapes.append(
                f"<rect x='{x}' y='{y}' width='{side}' height='{side}' fill='{fill}' fill-opacity='{0.75 * filled:g}' "
                f"stroke='{INK}' stroke-opacity='.6'/>"
            )
        words = f"α starts at {alpha[place]:.2f}" if place < 3 else f"{int((np.asarray(fused) != 0).sum())} of 27 taps"
        shapes += [text(x0 + 22 + t * 56, 24, label, size=11) for t, label in enumerate(("t − 1", "t", "t + 1"))]
        shapes += [text(x0 + 78, 102, name, bold=True), text(x0 + 78, 120, words, size=12)]
    shapes += [text(x, 62, sign, size=20) for x, sign in ((195, "+"), (400, "+"), (605, "="))]
    words = "The kernels, frame by frame: rows are height, columns width. Each view has the same nine weights."
    return svg(812, 158, "One kernel, seen from three sides", [*shapes, text(406, 148, words, size=12)])


def _st_resnet() -> str:
    """The second unit of a stage in both streams."""
    summary = Summary("st_resnet")
    unit = summary.params["appearance"]["layer1"][1]
    kernels = ["×".join(map(str, unit[f"conv{number}"]["kernel"].shape[:3])) for number in (1, 2, 3)]
    shapes = []
    for stream, y, fill in (("appearance", 170, BLUE), ("motion", 40, ORANGE)):
        shapes += [
            text(12, y + 5, stream, anchor="start", bold=True),
            *([arrow((108, y), (196, y)), arrow((222, y), (300, y))] if stream == "appearance" else []),
            *([arrow((108, y), (300, y))] if stream == "motion" else []),
        ]
        for place, kernel in enumerate(kernels):
            x = 302 + place * 122
            shapes += [box(x, y - 20, 96, 40, f"conv {kernel}", fill=fill)]
            shapes += [arrow((x + 96, y), (x + 120, y))] if place < 2 else [arrow((x + 96, y), (x + 123, y))]
        end = 302 + 3 * 122 + 24
        bend = y + 46 if stream == "appearance" else y - 34
        shapes += [
            circle(end - 10, y, "+", fill=fill),
            arrow((140, y), (140, bend), (end - 10, bend), (end - 10, y + (14 if bend > y else -14)), dashed=True),
            arrow((end + 4, y), (end + 34, y)),
            text(end + 58, y + 5, "ReLU"),
        ]
    shapes += [
        arrow((210, 40), (210, 156)),
        circle(210, 170, "+", fill=PURPLE),
        text(224, 110, "motion residual", anchor="start", size=12),
        text(420, 234, "identity", size=12),
    ]
    return svg(800, 244, "A motion residual of ST-ResNet", shapes)


def _transfer() -> str:
    """The correspondence network with the recipe's teacher."""
    wide = Summary("resnet50").params["fc"]["kernel"].shape[0]
    shapes = [
        box(10, 24, 120, 44, "frames of a clip", fill=ORANGE),
        box(10, 124, 120, 44, "the clip", fill=ORANGE),
        arrow((130, 46), (158, 46)),
        arrow((130, 146), (158, 146)),
        box(160, 24, 150, 44, "2D network, frozen\n(the teacher)", fill=RED),
        box(160, 124, 150, 44, "3D network\n(the student)"),
        arrow((310, 46), (338, 46)),
        arrow((310, 146), (338, 146)),
        box(340, 24, 104, 44, f"mean of frames\n[{wide}]", fill=RED, size=12),
        box(340, 124, 104, 44, "FC, [1024]"),
        arrow((444, 46), (470, 46), (470, 86), (486, 86)),
        arrow((444, 146), (470, 146), (470, 106), (486, 106)),
        box(488, 74, 110, 44, f"FC {1024 + wide}\n→ {correspondence.HALF}, ReLU", fill=PURPLE, size=12),
        arrow((598, 96), (616, 96)),
        box(618, 74, 92, 44, "FC 128, ReLU\nFC 2", fill=PURPLE, size=12),
        arrow((710, 96), (730, 96)),
        text(734, 92, "the same video,\nor not?", anchor="start", size=12),
    ]
    return svg(830, 186, "Knowledge transfer by correspondence", shapes)


def _data_flow() -> str:
    """From files to use."""
    steps = ("files", "manifest", "clips", "batches", "steps", "a run's folder", "use")
    by = ("prepare", "sampling", "loader", "train", "checkpoint", "predict, export, …")
    shapes = []
    for place, step in enumerate(steps):
        x = 8 + place * 134
        shapes.append(box(x, 34, 100, 42, step, fill=ORANGE if place in (1, 5) else BLUE))
        if place < len(by):
            shapes += [arrow((x + 100, 55), (x + 132, 55)), text(x + 117, 22 if place % 2 else 98, by[place], size=11)]
    return svg(8 + len(steps) * 134 - 26, 110, "Data flows one way", shapes)
