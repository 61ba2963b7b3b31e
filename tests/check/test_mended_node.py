"""A flipped bit in a node of which no copy is good is turned back, wherever it is; two of them are not taken for one."""

import random

import pytest

from razortools.check.bitflip import find_flipped_bit
from razortools.check.repair.edits import Verb
from razortools.check.repair.repair import Repaired, repair
from razortools.check.runner import check_quietly
from razortools.check.steps import finished
from razortools.engine.store.device import Device
from razortools.format.node import NODE_HEADER_BYTES, node_checksum
from tests.check.deceiving import looking_like_a_flip
from tests.check.editing import flip, image_of, indexed
from tests.check.samples import healthy


def repaired(device: Device) -> Repaired:
    done: Repaired = finished(repair(device))
    assert done.refused == "" and done.after.clean
    return done


@pytest.mark.parametrize("seed", range(6))
def test_any_bit_of_any_node_is_turned_back_bit_for_bit(seed: int) -> None:
    chance = random.Random(seed)
    device = healthy(copies=1)
    node_bytes = image_of(device).geometry.node_bytes
    at = chance.choice(list(indexed(device).addresses)) * 4096
    reach = chance.choice([8, 200, node_bytes])  # magic and checksum; keys; anything
    flip(device, at + chance.randrange(reach), chance.randrange(8))
    done = repaired(device)
    assert {edit.verb for edits in done.rounds for edit in edits} == {Verb.FLIP, Verb.FRAME}
    assert done.overlay.read(at, node_bytes) == healthy(copies=1).read(at, node_bytes)
    assert done.loss is not None and not done.loss.harmed and not done.loss.lost
    assert check_quietly(done.overlay).clean


@pytest.mark.parametrize("seed", range(4))
def test_two_flipped_bits_of_a_node_are_not_taken_for_one(seed: int) -> None:
    chance = random.Random(seed)
    device = healthy(copies=1)
    node_bytes = image_of(device).geometry.node_bytes
    at = indexed(device).leaf_addresses[0] * 4096
    for bit in chance.sample(range(8 * 8, 8 * node_bytes), 2):
        flip(device, at + bit // 8, bit % 8)
    whole = healthy(copies=1).read(at, node_bytes)
    assert find_flipped_bit(device.read(at, node_bytes)[8:], node_checksum(whole)) is None
    assert not [edit for edits in repaired(device).rounds for edit in edits if edit.verb is Verb.FLIP]


def test_rubbish_among_the_keys_is_not_taken_for_a_flipped_bit() -> None:
    chance = random.Random(9)
    device = healthy(copies=1)
    node_bytes = image_of(device).geometry.node_bytes
    at = indexed(device).leaf_addresses[0] * 4096
    body = device.read(at + 8, node_bytes - 8)
    rubbish = looking_like_a_flip(body, 8 * len(body) - 100, NODE_HEADER_BYTES, 30, chance)
    device.write(at + 8, rubbish)
    assert find_flipped_bit(rubbish, node_checksum(bytes(8) + body)) == 8 * len(body) - 100  # the checksum is deceived
    assert not [edit for edits in repaired(device).rounds for edit in edits if edit.verb is Verb.FLIP]
