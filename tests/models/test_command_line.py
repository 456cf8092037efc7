"""`python -m jax_video.models`: the table of networks and of one network's layers."""

import re

import commands
import pytest

from jax_video import networks


def rows(table):
    """The table's rows as lists of cells, without header and rule."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_network_has_parameters_flops_and_a_clip():
    finished = commands.run("jax_video.models", "--name=c2d_resnet50")
    assert finished.code == 0, finished.stderr
    ((name, parameters, flops, clip),) = rows(finished.stdout)
    assert (name, parameters, clip) == ("c2d_resnet50", "24,327,632", "8×224×224")
    # One frame of ResNet-50 takes 4.1 billion multiplications; from the second stage on there are 4 of 8 frames left.
    assert 4 * 2 * 4.1 < float(flops) < 8 * 2 * 4.1


def test_layers_stand_in_the_order_of_use_and_hold_all_parameters():
    finished = commands.run("jax_video.models", "--name=st_resnet", "--layers", "--classes=101", "--size=112")
    assert finished.code == 0, finished.stderr
    *layers, total = rows(finished.stdout)
    assert total == ["total", "", "58,624,394"]
    assert sum(int(row[2].replace(",", "")) for row in layers) == 58_624_394
    assert layers[0] == ["appearance.conv1", "5×56×56×64", "9,408"]
    assert layers[-1][0] == "motion.fc" and layers[-1][1] == "5×1×1×101"
    names = [row[0] for row in layers]
    assert len(set(names)) == len(names)
    assert names.index("appearance.layer2.1.conv1") < names.index("appearance.layer2.1.conv3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name=resnet"], "there is no network 'resnet'; choose one of resnet3d10, "),
        (["--layers"], "--layers is of one network: choose it with --name=NAME."),
        (["t3d121"], "unexpected arguments t3d121: choose a network with --name=NAME."),
        (["--name=cost_a_resnet50", "--size=3"], "clips of 8 frames of 3×3 pixels"),
    ],
)
def test_misuse_ends_with_one_message(arguments, message):
    finished = commands.run("jax_video.models", *arguments)
    assert finished.code == 2 and finished.stdout == ""
    assert message in finished.stderr and "Traceback" not in finished.stderr


def test_the_examples_of_the_help_are_networks():
    finished = commands.run("jax_video.models", "--help")
    examples = re.findall("--name=([a-z0-9_]+)", finished.stdout)
    assert finished.code == 0 and examples and set(examples) <= set(networks.NETWORKS)
